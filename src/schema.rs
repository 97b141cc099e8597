//! The arguments of tool calls against the schema the tool published (`inputSchema`, JSON Schema), where
//! `server.validate_arguments` is on. Schemas come from servers, so nothing in them is fetched, and what cannot be
//! compiled checks nothing.

use std::fmt::Write as _;
use std::sync::OnceLock;

use jsonschema::Validator;

use crate::reject::{Code, Reject, Verdict, clip};
use crate::verbatim::Verbatim;

/// Faults named in one refusal.
const NAMED: usize = 5;

/// A tool's schema, compiled when first used.
#[derive(Debug)]
pub struct Schema {
    written: Box<str>,
    compiled: OnceLock<Option<Validator>>,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Schema {}

impl Schema {
    pub fn new(written: Verbatim<'_>) -> Self {
        Self { written: written.get().into(), compiled: OnceLock::new() }
    }

    fn compile(&self) -> Result<Validator, String> {
        let tree: serde_json::Value = serde_json::from_str(&self.written).map_err(|e| e.to_string())?;
        jsonschema::validator_for(&tree).map_err(|e| e.to_string())
    }

    /// `None` if it cannot be compiled; a reference to elsewhere is such a fault.
    fn validator(&self) -> Option<&Validator> {
        let compile = || self.compile().inspect_err(|e| log::warn!("an inputSchema cannot be used to check arguments: {e}")).ok();
        self.compiled.get_or_init(compile).as_ref()
    }

    /// Checks arguments; absent ones are an empty object, as servers take them.
    ///
    /// # Errors
    /// `invalid_params` naming where and what, without the values.
    pub fn check(&self, arguments: Option<Verbatim<'_>>) -> Verdict<()> {
        let Some(validator) = self.validator() else { return Ok(()) };
        let read = arguments.map_or(Ok(serde_json::json!({})), |raw| serde_json::from_str(raw.get()));
        let tree: serde_json::Value = read.map_err(|e| Reject::new(Code::InvalidParams, "`arguments` cannot be read").because(e))?;
        let mut told = String::new();
        for fault in validator.iter_errors(&tree).take(NAMED) {
            let place = fault.instance_path().to_string();
            let masked = fault.masked().to_string();
            let _ = write!(told, "{}`arguments{}`: {}", if told.is_empty() { "" } else { "; " }, clip(&place), masked);
        }
        if told.is_empty() { Ok(()) } else { Err(Reject::new(Code::InvalidParams, told)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_by_pointer_and_values_are_not_repeated() {
        let written = r#"{"type":"object","properties":{"path":{"type":"string"},"deep":{"type":"object","properties":{"n":{"type":"integer"}}}},"required":["path"],"additionalProperties":false}"#;
        let schema = Schema::new(Verbatim::found(written));
        assert!(schema.check(Some(Verbatim::found(r#"{"path":"a"}"#))).is_ok());
        let detail = |text: &str| schema.check(Some(Verbatim::found(text))).unwrap_err().detail.into_owned();
        assert!(detail("{}").contains("path") && detail("{}").contains("required"));
        let fault = detail(r#"{"path":"secret-a","deep":{"n":"secret-b"}}"#);
        assert!(fault.contains("`arguments/deep/n`") && !fault.contains("secret"), "{fault}");
        assert_eq!(schema.check(None).unwrap_err().code, Code::InvalidParams);
    }

    #[test]
    fn nothing_is_fetched() {
        for reference in ["http://127.0.0.1:1/schema.json", "file:///etc/passwd"] {
            assert!(Schema::new(Verbatim::found(&format!(r#"{{"$ref":"{reference}"}}"#))).compile().is_err());
        }
    }
}
