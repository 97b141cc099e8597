//! `/docs`: Swagger UI from files embedded in the binary, so that it works where there is no Internet.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use utoipa_swagger_ui::Config;

use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};

/// Nothing from elsewhere is loaded or talked to; Swagger UI styles its elements inline and uses data images.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";

static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").use_base_layout().try_it_out_enabled(true)));

/// The page, or a file it loads.
///
/// # Errors
/// `not_found`.
pub fn file(name: &str) -> Verdict<Page> {
    let missing = || Reject::new(Code::NotFound, "no such file below /docs");
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).ok().flatten().ok_or_else(missing)?;
    let body = if name.is_empty() || name == "index.html" { rebased(&file.bytes) } else { Bytes::from(file.bytes.into_owned()) };
    let page = Page { content_type: Cow::Owned(file.content_type), ..Page::json(200, body) };
    let page = if file.gzpipped { page.with(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")) } else { page };
    Ok(page
        .with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
        .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        .with(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")))
}

/// The page names its files relatively; at `/docs`, without a slash, they would be looked for one level too high.
fn rebased(page: &[u8]) -> Bytes {
    String::from_utf8_lossy(page).replacen("<head>", "<head>\n    <base href=\"/docs/\">", 1).into()
}
