use http::HeaderName;

/// Writes the type, its presets, its methods and its table from one list of switches, so that none
/// of them can lack a switch or contradict another.
macro_rules! switches {
    ($( $name:ident: guarded $guarded:literal, rfc9111 $rfc9111:literal, $meaning:literal; )+) => {
        /// What the cache may do where RFC 9111 leaves the choice, or applications regret what it
        /// allows: a list of named switches.
        ///
        /// Two presets set them all. [`guarded`](Self::guarded), the default, is for a cache in
        /// front of an application; [`rfc9111`](Self::rfc9111) is a transparent shared cache that
        /// follows the RFC to the letter. Each switch has a method that changes it alone.
        ///
        /// | switch | when on, the cache | guarded | rfc9111 |
        /// |---|---|---|---|
        $(#[doc = concat!(
            "| [`", stringify!($name), "`](Self::", stringify!($name), ") | ", $meaning,
            " | ", $guarded, " | ", $rfc9111, " |"
        )])+
        ///
        /// No switch stores what `no-store` or `private` forbids, nor the response to a request
        /// with `Authorization` that is not marked `public`, `s-maxage` or `must-revalidate`
        /// (RFC 9111 §3.5).
        ///
        /// # Examples
        ///
        /// ```
        /// use tower_response_cache::{Policy, Rules};
        ///
        /// let rules = Rules::builder()
        ///     .policy(Policy::guarded().heuristics(true).store_any_status(true))
        ///     .build()?;
        /// # Ok::<(), tower_response_cache::RulesError>(())
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Policy {
            pub(crate) targeted_fields: Vec<HeaderName>,
            $(pub(crate) $name: bool,)+
        }

        impl Policy {
            /// Returns the default preset, which refuses what applications regret.
            #[must_use]
            pub fn guarded() -> Self {
                Self { targeted_fields: Self::cdn(), $($name: $guarded,)+ }
            }

            /// Returns the preset that follows RFC 9111 to the letter.
            #[must_use]
            pub fn rfc9111() -> Self {
                Self { targeted_fields: Self::cdn(), $($name: $rfc9111,)+ }
            }

            $(
                #[doc = concat!("When on, the cache ", $meaning, ".")]
                ///
                #[doc = concat!(
                    "Default: ", $guarded, " in `guarded`, ", $rfc9111, " in `rfc9111`."
                )]
                #[must_use]
                pub fn $name(mut self, on: bool) -> Self {
                    self.$name = on;
                    self
                }
            )+
        }

        /// A [`Policy`] in a file.
        #[cfg(feature = "config")]
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct PolicyDocument {
            pub(super) preset: Option<Preset>,
            pub(super) targeted_fields: Option<Vec<String>>,
            $($name: Option<bool>,)+
        }

        #[cfg(feature = "config")]
        impl PolicyDocument {
            /// Sets the switches that the file names.
            pub(super) fn switch(&self, policy: &mut Policy) {
                $(policy.$name = self.$name.unwrap_or(policy.$name);)+
            }
        }
    };
}

switches! {
    store_set_cookie: guarded false, rfc9111 true,
        "stores responses with `Set-Cookie` and replays them (RFC 9111 §7.3)";
    store_any_status: guarded false, rfc9111 true,
        "stores every final status with explicit freshness, not only those of the rule";
    store_partial: guarded false, rfc9111 true,
        "stores 206 responses and answers from them (RFC 9111 §3.3)";
    store_post: guarded false, rfc9111 true,
        "stores a POST's response for later GETs of the URI that it represents (RFC 9110 §9.3.3)";
    heuristics: guarded false, rfc9111 true,
        "makes up a lifetime from `Last-Modified` (RFC 9111 §4.2.2)";
    shared_despite_cookies: guarded false, rfc9111 true,
        "treats a request with a `Cookie` as one without; else its response is stored only if it is \
         `public`, or has `s-maxage` or a targeted field, and does not vary on `Cookie`";
    trusted_proxy: guarded false, rfc9111 true,
        "stores though the request has routing fields outside the key, like `X-Forwarded-Host`";
    get_with_body: guarded false, rfc9111 true,
        "serves and stores GET requests that have a body";
    obey_client: guarded false, rfc9111 true,
        "obeys the request's `no-cache`, `max-age`, `min-fresh` and `Pragma` (RFC 9111 §5.2.1)";
    normalise_vary: guarded false, rfc9111 true,
        "matches `Accept-Language` and its like by meaning (RFC 9111 §4.1)";
    apparent_age: guarded true, rfc9111 true,
        "counts the time since the response's `Date` as age (RFC 9111 §4.2.3)";
    stale_on_disconnect: guarded false, rfc9111 true,
        "serves stale when the inner service fails, without `stale-if-error` (RFC 9111 §4.2.4)";
    serve_ranges: guarded true, rfc9111 true,
        "answers `Range` requests from complete stored responses";
    collapse: guarded true, rfc9111 true,
        "answers requests for the same at the same time by one call of the handler";
    validate: guarded true, rfc9111 true,
        "keeps stale responses that have a validator, and validates them (RFC 9111 §4.3)";
}

impl Policy {
    /// Replaces the targeted fields that are read before `Cache-Control`, the first valid one
    /// winning (RFC 9213).
    ///
    /// Default: `CDN-Cache-Control`, in both presets.
    #[must_use]
    pub fn targeted_fields(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.targeted_fields = fields.into_iter().collect();
        self
    }

    fn cdn() -> Vec<HeaderName> {
        vec![HeaderName::from_static("cdn-cache-control")]
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::guarded()
    }
}

/// The presets by their names in a file.
#[cfg(feature = "config")]
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    Guarded,
    Rfc9111,
}

#[cfg(feature = "config")]
impl Preset {
    pub(super) fn policy(self) -> Policy {
        match self {
            Self::Guarded => Policy::guarded(),
            Self::Rfc9111 => Policy::rfc9111(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_is_the_default_and_refuses_what_rfc9111_allows() {
        let policy = Policy::default();
        assert_eq!(policy, Policy::guarded());
        assert!(!policy.store_set_cookie && Policy::rfc9111().store_set_cookie);
        assert!(!policy.heuristics && Policy::rfc9111().heuristics);
        assert_eq!(policy.targeted_fields, ["cdn-cache-control"]);
    }

    #[test]
    fn a_switch_changes_itself_alone() {
        let policy = Policy::guarded().obey_client(true);
        assert!(policy.obey_client);
        assert_eq!(policy.obey_client(false), Policy::guarded());
    }
}
