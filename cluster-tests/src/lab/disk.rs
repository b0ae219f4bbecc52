//! A disk for a node: an ext4 image on a loop device, whose power can be cut.
//!
//! ext4's `GOINGDOWN` ioctl stops the file system as a power cut does: what was not synced is gone, and
//! the next mount replays the journal.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{run, shell};

/// Size of an image; sparse, so it costs what is written.
const BYTES: u64 = 1 << 30;
/// How long a file system may stay busy after its last process was killed.
const BUSY: Duration = Duration::from_secs(5);
/// Go down without flushing the journal.
const NO_FLUSH: u32 = 2;

mod ioctl {
    #![expect(unsafe_code, reason = "an ioctl has no safe wrapper")]
    nix::ioctl_write_ptr_bad!(go_down_raw, 0x8004_587d, u32);

    /// Stops a file system.
    pub(super) fn go_down(descriptor: std::os::fd::RawFd, how: u32) -> nix::Result<()> {
        // SAFETY: the kernel reads four bytes at the pointer and keeps nothing of it.
        unsafe { go_down_raw(descriptor, &raw const how) }.map(drop)
    }
}

/// A node's disk.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    claimed: bool,
}

impl Disk {
    /// Makes the image and mounts it at `disk` in the directory.
    pub(super) fn make(site: &Path) -> Result<Self, String> {
        let (image, mount) = (site.join("disk.img"), site.join("disk"));
        let disk = Disk { image, mount, claimed: false };
        let made = File::create(&disk.image).and_then(|image| image.set_len(BYTES));
        made.and_then(|()| std::fs::create_dir_all(&disk.mount)).map_err(|e| e.to_string())?;
        run(shell("mkfs.ext4 -q -F -m 0").arg(&disk.image))?;
        disk.attach()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Its loop device's name, as `loop3`.
    pub fn device(&self) -> Result<String, String> {
        let found = run(shell("findmnt -n -o SOURCE --mountpoint").arg(&self.mount))?;
        Ok(found.trim().trim_start_matches("/dev/").to_owned())
    }

    fn attach(&self) -> Result<(), String> {
        run(shell("mount -o loop,errors=remount-ro").arg(&self.image).arg(&self.mount)).map(drop)
    }

    fn detach(&self) -> Result<(), String> {
        let deadline = Instant::now() + BUSY;
        loop {
            match run(shell("umount").arg(&self.mount)) {
                Ok(_) => return Ok(()),
                Err(why) if Instant::now() > deadline => return Err(why),
                // A process that was killed still holds its files for a moment.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Stops it, as if its power were cut now. Whoever uses it must be stopped before and killed after.
    pub fn go_down(&self) -> Result<(), String> {
        let root = File::open(&self.mount).map_err(|e| e.to_string())?;
        ioctl::go_down(root.as_raw_fd(), NO_FLUSH).map_err(|e| format!("GOINGDOWN: {e}"))
    }

    /// Mounts it again: what was synced is there, and nothing else need be. Nobody may use it.
    pub fn come_back(&self) -> Result<(), String> {
        self.detach()?;
        self.attach()
    }

    /// Takes it for a fault: what is frozen, full or read-only must not lose its power as well, or could
    /// not be unmounted.
    pub fn claim(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.claimed, true) {
            return Err(format!("another fault has {}", self.mount.display()));
        }
        Ok(())
    }

    /// Gives it back.
    pub fn release(&mut self) {
        self.claimed = false;
    }

    /// Whether a fault has it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// Has the kernel meet an error in the file system, upon which it becomes read-only.
    pub fn break_down(&self) -> Result<(), String> {
        let path = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device()?);
        std::fs::write(&path, "1").map_err(|e| format!("{path}: {e}"))
    }

    /// Checks the file system and mounts it again. Nobody may use it.
    pub fn repair(&self) -> Result<(), String> {
        self.detach()?;
        let checked = shell("fsck.ext4 -p").arg(&self.image).output().map_err(|e| e.to_string())?;
        // 1 and 2: there were errors, and they are corrected.
        if !matches!(checked.status.code(), Some(0..=2)) {
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            return Err(format!(
                "fsck.ext4 of {}: {}: {said}",
                self.image.display(),
                checked.status
            ));
        }
        self.attach()
    }

    /// Unmounts and deletes it.
    pub(super) fn remove(&mut self) -> Result<(), String> {
        self.detach()?;
        std::fs::remove_file(&self.image).map_err(|e| e.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Most have been removed; the world ends with its mounts in any case.
        let _ = run(shell("umount -l").arg(&self.mount));
    }
}
