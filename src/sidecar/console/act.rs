//! The buttons of the operator's page: forms that work without JavaScript, and lead back to where they were pressed. Each
//! carries the token that shows it to be from a page of ours.

use http::header::{self, HeaderValue};
use http::request::Parts;

use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::sidecar::backends;
use crate::snapshot::{Snapshot, State};

/// The fields of a form.
#[derive(Default)]
pub struct Form {
    pub csrf: String,
    pub action: String,
    pub backend: String,
    pub token: String,
}

impl Form {
    /// Reads the body of one.
    ///
    /// # Errors
    /// `unsupported_media_type` for what is no form.
    pub fn read(request: &Parts, body: &[u8]) -> Verdict<Self> {
        let kind = request.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !kind.is_some_and(|kind| kind.starts_with(b"application/x-www-form-urlencoded")) {
            return Err(Reject::new(Code::UnsupportedMediaType, "this path takes a form"));
        }
        let mut form = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            let field = match &*name {
                "csrf" => &mut form.csrf,
                "action" => &mut form.action,
                "backend" => &mut form.backend,
                "token" => &mut form.token,
                _ => continue,
            };
            *field = value.into_owned();
        }
        Ok(form)
    }
}

/// What is to be done where that takes no waiting; gives back the section to go to.
///
/// # Errors
/// The refusal for the administrator.
pub fn act(state: &State, snapshot: &Snapshot, form: &Form) -> Verdict<&'static str> {
    match form.action.as_str() {
        "drain" | "undrain" => {
            let _: Page = backends::drain(state, &form.backend, form.action == "drain")?;
            Ok("/admin/#backends")
        }
        "purge" => {
            let cache = snapshot.cache.as_ref().ok_or_else(|| Reject::new(Code::NotFound, "there is no cache (cache.enabled)"))?;
            let purged = cache.purge(None, None, None);
            log::info!("cache: {purged} entries purged from the operator's page");
            Ok("/admin/#cache")
        }
        _ => Err(Reject::new(Code::InvalidParams, "`action` is one of drain, undrain, purge, reload")),
    }
}
