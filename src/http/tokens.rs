//! Tokens: made out, listed and revoked by the bucket's owner.

use bytes::Bytes;

use super::Edge;
use super::answer::{self, Format, Outcome, to_json};
use super::call::{Call, Payload};
use super::fields::Fields;
use super::leader::{Write, write_on_leader};
use super::owner::owned;
use crate::api::{TokenInfo, TokenMinted};
use crate::error::Result;
use crate::kv::limits::TOKEN_TTL_DEFAULT;
use crate::kv::policy::parse_permissions;
use crate::kv::{Answer, BucketName, Operation, Token, TokenRequest, token};

/// Largest body that asks for a token, in bytes.
const TOKEN_BODY_BYTES_MAX: usize = 16 << 10;
const LIMIT: (&str, usize) = ("a token's request", TOKEN_BODY_BYTES_MAX);

/// `POST /BUCKET/tokens/`: makes out a token.
pub(super) async fn mint(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
) -> Outcome {
    call.check_unconditional()?;
    let operation = |body: Bytes| Ok(Operation::MintToken(request(&Fields::parse(call, &body)?)?));
    let write = Write { bucket, limit: LIMIT, dress: minted };
    write_on_leader(edge, call, payload, write, operation).await
}

fn request(fields: &Fields) -> Result<TokenRequest> {
    let words = fields.text("permissions").unwrap_or_default();
    let (permissions, execute) = parse_permissions(words.split(','))?;
    Ok(TokenRequest {
        prefix: fields.text("prefix").unwrap_or_default().to_owned().into(),
        permissions,
        execute,
        ttl: fields.number("ttl")?.unwrap_or(TOKEN_TTL_DEFAULT),
    })
}

/// A new token as the hosted service says it: a form, or JSON where that is accepted.
fn minted(call: &Call, mut answer: Answer) -> Result<Answer> {
    let token = String::from_utf8_lossy(&answer.body).into_owned();
    let (media, body) = match Format::accepted(call.accept()) {
        Format::Json => ("application/json", to_json(&TokenMinted { access_token: token })?),
        _ => {
            // Of letters, digits, `-`, `_` and `.`: a form needs nothing of it encoded.
            let body = format!("access_token={token}");
            ("application/x-www-form-urlencoded", body.into())
        }
    };
    answer.headers.push(("content-type".to_owned(), media.to_owned()));
    answer.body = body;
    Ok(answer)
}

/// `GET /BUCKET/tokens/`: what tokens permit, never what they are.
pub(super) async fn list(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    let format = Format::of(call)?;
    owned(edge, call, bucket, |txn| {
        let infos: Vec<_> =
            token::list(txn)?.into_iter().map(|(id, token)| info(id, token)).collect();
        answer::rows(&infos, format, |info| {
            let TokenInfo { id, prefix, permissions, expires_at } = info;
            let permissions = permissions.join(",");
            format!("{id} prefix={prefix} permissions={permissions} expires_at={expires_at}")
        })
    })
    .await
}

fn info(id: String, token: Token) -> TokenInfo {
    let expires_at = token.expires_at;
    let grant = token.grant();
    let prefix = String::from_utf8_lossy(&grant.prefix).into_owned();
    TokenInfo { id, prefix, permissions: grant.words().collect(), expires_at }
}

/// `DELETE /BUCKET/tokens/ID`: ends a token.
pub(super) async fn revoke(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    id: &str,
) -> Outcome {
    call.check_unconditional()?;
    let operation = |_| Ok(Operation::RevokeToken { id: id.to_owned() });
    write_on_leader(edge, call, payload, Write::plain(bucket, LIMIT), operation).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;
    use crate::kv::{Execute, Permission};

    fn call(accept: &str) -> Call {
        let request = http::Request::post("/b/tokens/").header("accept", accept);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Call::new(request.body(()).unwrap().into_parts().0, Origin::default())
    }

    #[test]
    fn a_token_is_asked_for_in_words() {
        let parse = |body: &'static str| {
            request(&Fields::parse(&call(""), &Bytes::from_static(body.as_bytes()))?)
        };
        let token = parse("prefix=a%3A&permissions=write,+read,execute:b/c&ttl=60").unwrap();
        assert_eq!(token.prefix, "a:");
        assert_eq!(token.permissions, [Permission::Read, Permission::Write]);
        assert_eq!(token.execute.words().collect::<Vec<_>>(), ["execute:b/c"]);
        assert_eq!(token.ttl, 60);
        assert_eq!(parse("permissions=execute").unwrap().execute, Execute::All);
        assert_eq!(parse("permissions=read").unwrap().ttl, TOKEN_TTL_DEFAULT);
        assert!(parse("permissions=fly").is_err());
        assert!(parse("permissions=execute:").is_err());
        assert!(parse("permissions=read&ttl=x").is_err());
    }

    #[test]
    fn a_token_is_said_as_it_is_accepted() {
        let said = |accept| minted(&call(accept), Answer::text("a.b")).unwrap().body;
        assert_eq!(said(""), "access_token=a.b");
        assert_eq!(said("application/json"), r#"{"access_token":"a.b"}"#);
    }
}
