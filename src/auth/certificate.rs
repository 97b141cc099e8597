//! Client certificates (mutual TLS) as identity. The certificate was verified by the listener; here its names are looked
//! up in the list that was configured.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::identity::{Certificate, Standing};
use crate::principal::{Identity, Principal, Way};

/// The names in a client certificate: URI, DNS and e-mail alternative names, then the common name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Names {
    /// Reads the names of a certificate in DER; `None` if it cannot be read.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
                _ => None,
            }));
        }
        names.extend(certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned)));
        Some(Self(names))
    }
}

/// The configured certificates.
#[derive(Default)]
pub struct Known(Vec<(GlobMatcher, Standing)>);

impl Known {
    pub fn new(list: &[Certificate]) -> Self {
        let compiled = list.iter().filter_map(|entry| {
            let glob = GlobBuilder::new(&entry.name).literal_separator(true).build().ok()?;
            Some((glob.compile_matcher(), entry.standing.clone()))
        });
        Self(compiled.collect())
    }

    /// Who a certificate stands for: the first entry that one of its names matches.
    pub fn find(&self, names: &Names) -> Option<Arc<Principal>> {
        self.0.iter().find_map(|(glob, standing)| {
            let name = names.0.iter().find(|name| glob.is_match(name))?;
            let Standing { tenant, roles, tier } = standing.clone();
            let identity = Identity { issuer: "certificate".into(), subject: name.clone(), tenant, roles, tier, ..Identity::default() };
            Some(Principal::new(Way::Certificate, identity))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_leap_over_a_slash() {
        let entry = |name: &str| Certificate { name: name.into(), standing: Standing::default() };
        let known = Known::new(&[entry("spiffe://acme/*"), entry("ci.example.com")]);
        let find = |name: &str| known.find(&Names(vec!["other".into(), name.into()])).map(|principal| principal.identity.subject.clone());
        assert_eq!(find("spiffe://acme/ci").as_deref(), Some("spiffe://acme/ci"));
        assert_eq!(find("ci.example.com").as_deref(), Some("ci.example.com"));
        for stranger in ["spiffe://acme/ci/deep", "spiffe://evil/acme/ci", "xci.example.com", ""] {
            assert_eq!(find(stranger), None, "{stranger}");
        }
    }
}
