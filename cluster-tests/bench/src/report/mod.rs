//! What a run found, for readers: a document with a table, and plots.

mod costs;
mod document;
mod plots;

use std::path::Path;

pub use document::document;
pub use plots::plots;

use crate::results::Results;

/// Writes the document and its plots into the directory of documents.
///
/// # Errors
/// When a file cannot be written, or a plot cannot be drawn.
pub fn write(results: &Results, docs: &Path) -> Result<(), String> {
    let images = docs.join("plots");
    std::fs::create_dir_all(&images).map_err(|e| format!("{}: {e}", images.display()))?;
    let drawn = plots(&results.series)?;
    for plot in &drawn {
        put(&images.join(plot.file), &plot.svg)?;
    }
    put(&docs.join("performance.md"), &document(results, &drawn))
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
