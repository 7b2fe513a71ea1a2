//! The vocabulary: one word for each reason, the same in `Cache-Status`, logs,
//! counters and the API.

/// Declares an enum of reasons, each with its word.
macro_rules! reasons {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

        impl $name {
            /// Every reason, in order of declaration.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// Returns the word for this reason.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a request went to the handler without the store being asked.
    pub enum Bypass {
        /// The rule of the route says so.
        Rule = "rule",
        /// The method's responses are not cached.
        Method = "method",
        /// The connection is to be upgraded, to a WebSocket for instance.
        Upgrade = "upgrade",
        /// It is a gRPC call, by no rule a safe one of one message.
        Grpc = "grpc",
        /// The client asked for server-sent events.
        EventStream = "event-stream",
        /// A GET or HEAD with content.
        RequestContent = "request-content",
        /// Its content would be part of the key, and the layer reads none: see
        /// [`CacheLayer::keyed_by_content`](crate::CacheLayer::keyed_by_content).
        ContentUnread = "content-unread",
        /// Its content, to be part of the key, is longer than the cap.
        ContentTooLarge = "content-too-large",
        /// Its content, to be part of the key, did not come to its end in time.
        ContentTimeout = "content-timeout",
        /// Its content, to be part of the key, failed, or is not as long as announced.
        ContentIncomplete = "content-incomplete",
        /// It has trailers behind the content that is part of the key.
        RequestTrailers = "request-trailers",
        /// A field that reroutes requests, such as `X-Forwarded-Host`, is not part of the key.
        RoutingField = "routing-field",
        /// A precondition that only the origin can judge: `If-Match`, `If-Unmodified-Since`.
        Precondition = "precondition",
        /// Host and target disagree about the authority.
        ConflictingHost = "conflicting-host",
        /// The authority is none.
        InvalidHost = "invalid-host",
        /// The key would be longer than keys may be.
        KeyTooLong = "key-too-long",
        /// The cache is switched off.
        Disabled = "disabled",
    }
}

reasons! {
    /// Why a request whose store was asked still went to the handler.
    pub enum Miss {
        /// Nothing is stored under its key.
        Absent = "absent",
        /// Other variants are stored, none for its nominated fields.
        Variant = "variant",
        /// What was stored has been invalidated.
        Invalidated = "invalidated",
        /// What was stored is damaged.
        Damaged = "damaged",
        /// What is stored is stale.
        Stale = "stale",
        /// What is stored may only be used after validation.
        NoCache = "no-cache",
        /// The client wants it from the handler, or newer than what is stored.
        Request = "request",
        /// What is stored was cached by the rule alone, and this request carries a cookie.
        Cookie = "cookie",
        /// What is stored was cached by the rule alone, and this request carries credentials.
        Authorization = "authorization",
        /// What is stored is a part that does not hold the bytes wanted.
        Partial = "partial",
        /// It is a POST, whose response may serve later GETs.
        Method = "method",
        /// The store is away.
        StoreUnavailable = "store-unavailable",
        /// The store did not answer in time.
        StoreTimeout = "store-timeout",
        /// The store refused or answered nonsense.
        StoreError = "store-error",
    }
}

reasons! {
    /// Why a response was not stored.
    pub enum Refusal {
        /// The request's method does not let its response be stored.
        Method = "method",
        /// The response says `no-store`.
        NoStore = "no-store",
        /// The request says `no-store`.
        RequestNoStore = "request-no-store",
        /// The response says `private`.
        Private = "private",
        /// The request carries credentials, and the response does not say that it may be shared.
        Authorization = "authorization",
        /// The request carries a cookie, and the response does not say that it may be shared.
        Cookie = "cookie",
        /// The response sets a cookie.
        SetCookie = "set-cookie",
        /// The status is not one that is stored.
        Status = "status",
        /// Neither response nor rule gives it a lifetime, and it is not kept to be validated.
        NoFreshness = "no-freshness",
        /// It says that it is to be validated before each use, and has nothing to validate it by.
        NoValidator = "no-validator",
        /// `must-understand` with a status that is not understood.
        MustUnderstand = "must-understand",
        /// It varies on everything.
        VaryAny = "vary-any",
        /// It varies on the cookie, and the request carries one.
        VaryCookie = "vary-cookie",
        /// A partial response that cannot be kept.
        Partial = "partial",
        /// It is a stream of events.
        EventStream = "event-stream",
        /// It answers a gRPC call with anything but one message and `grpc-status: 0` behind it.
        Grpc = "grpc",
        /// The body is larger than the cap.
        BodyTooLarge = "body-too-large",
        /// The header fields are larger than the cap.
        FieldsTooLarge = "fields-too-large",
        /// The body failed, was abandoned, or is not as long as announced.
        Incomplete = "incomplete",
        /// One of its scopes was invalidated while the handler ran.
        Invalidated = "invalidated",
        /// The store was away when the request came, or refused the response.
        StoreError = "store-error",
        /// The response carries a tag that is too long, or too many of them.
        Tags = "tags",
        /// The handler said so, with the `NoStore` extension.
        Handler = "handler",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn every_reason_is_a_token_of_its_own() {
        fn check(words: &[&str]) {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len());
            for word in words {
                assert!(
                    word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                    "{word}"
                );
            }
        }
        check(&Bypass::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
        check(&Miss::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
        check(&Refusal::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn the_readme_explains_every_reason() {
        let readme = include_str!("../README.md");
        let (_, section) = readme
            .split_once("## What is cached, and what is not")
            .unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let tables = section.split("\n\n").filter(|text| text.starts_with('|'));
        // In the first column, beneath a head of two lines, one reason or several.
        let explained: Vec<BTreeSet<&str>> = tables
            .map(|table| {
                let cells = table
                    .lines()
                    .skip(2)
                    .filter_map(|row| row.split('|').nth(1));
                cells
                    .flat_map(|cell| cell.split('`').skip(1).step_by(2))
                    .collect()
            })
            .collect();
        let reasons: [BTreeSet<&str>; 3] = [
            Bypass::ALL.iter().map(|reason| reason.as_str()).collect(),
            Miss::ALL.iter().map(|reason| reason.as_str()).collect(),
            Refusal::ALL.iter().map(|reason| reason.as_str()).collect(),
        ];
        assert_eq!(explained, reasons);
    }
}
