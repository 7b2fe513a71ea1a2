//! `Cache-Control` (RFC 9111 §5.2) and `Pragma` (§5.4).
//!
//! A member that does not fit the grammar is read the safe way: it can still
//! forbid, and a lifetime it states is zero, but it allows nothing.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, PRAGMA};

use super::fields;

/// What a response says to caches (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: Extent,
    pub(crate) private: Extent,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) public: bool,
    pub(crate) immutable: bool,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads the directives of a response from its `Cache-Control`.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if let Some(list) = fields::joined(headers, &CACHE_CONTROL) {
            each_directive(&list, |name, argument| directives.take(name, argument));
        }
        directives
    }

    fn take(&mut self, name: &[u8], argument: &Argument<'_>) {
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.widen(argument.extent()),
            b"private" => self.private.widen(argument.extent()),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"max-age" => lower(&mut self.max_age, argument.seconds()),
            b"s-maxage" => lower(&mut self.s_maxage, argument.seconds()),
            b"stale-while-revalidate" => {
                lower(&mut self.stale_while_revalidate, argument.seconds());
            }
            b"stale-if-error" => lower(&mut self.stale_if_error, argument.seconds()),
            b"must-understand" => self.must_understand |= argument.is_sound(),
            b"public" => self.public |= argument.is_sound(),
            b"immutable" => self.immutable |= argument.is_sound(),
            _ => {}
        }
    }
}

/// What a client asks of caches (RFC 9111 §5.2.1, RFC 5861 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    /// [`Duration::MAX`] when the client sets no limit.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads the directives of a request from its `Cache-Control`, or where
    /// there is none from its `Pragma` (RFC 9111 §5.4).
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        match fields::joined(headers, &CACHE_CONTROL) {
            Some(list) => each_directive(&list, |name, argument| directives.take(name, argument)),
            None => directives.no_cache = pragma_no_cache(headers),
        }
        directives
    }

    /// Returns only what a client may ask of a cache that does not let itself
    /// be sent to the origin: to keep nothing, and not to go there.
    pub(crate) fn not_obeyed(self) -> Self {
        Self {
            no_store: self.no_store,
            only_if_cached: self.only_if_cached,
            ..Self::default()
        }
    }

    fn take(&mut self, name: &[u8], argument: &Argument<'_>) {
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => lower(&mut self.max_age, argument.seconds()),
            b"min-fresh" => self.min_fresh = self.min_fresh.max(Some(argument.seconds())),
            b"max-stale" => lower(&mut self.max_stale, argument.limit()),
            b"stale-if-error" => lower(&mut self.stale_if_error, argument.seconds()),
            _ => {}
        }
    }
}

/// Says whether a message without `Cache-Control` has `Pragma: no-cache`.
pub(crate) fn pragma_no_cache(headers: &HeaderMap) -> bool {
    !headers.contains_key(CACHE_CONTROL)
        && fields::joined(headers, &PRAGMA).is_some_and(|list| {
            fields::members(&list).any(|member| member.eq_ignore_ascii_case(b"no-cache"))
        })
}

/// How much of a response `no-cache` or `private` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The directive is not there.
    #[default]
    Absent,
    /// The named fields only: the qualified form (RFC 9111 §5.2.2.4, §5.2.2.7).
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

impl Extent {
    /// Reads the qualified form's list; a list that does not hold field names
    /// alone qualifies nothing.
    pub(crate) fn of_fields(list: &[u8]) -> Self {
        let names: Result<Vec<_>, _> = fields::members(list).map(HeaderName::from_bytes).collect();
        names.map_or(Self::Whole, Self::of_names)
    }

    fn of_names(mut names: Vec<HeaderName>) -> Self {
        /// More are taken for the whole response: they take memory, and each hit would look for each.
        const MOST: usize = 32;
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        match names.len() {
            1..=MOST => Self::Fields(names),
            _ => Self::Whole,
        }
    }

    /// Returns the fields that the qualified form names.
    pub(crate) fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Absent | Self::Whole => &[],
        }
    }

    /// Adds what another directive of the same name is about.
    fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Whole, _) | (_, Self::Absent) => {}
            (Self::Fields(names), Self::Fields(more)) => {
                let names = std::mem::take(names).into_iter().chain(more);
                *self = Self::of_names(names.collect());
            }
            (_, other) => *self = other,
        }
    }
}

/// What stands behind a directive's name.
#[derive(Debug)]
enum Argument<'a> {
    Absent,
    Token(&'a [u8]),
    /// Without its quotes and escapes.
    Quoted(Cow<'a, [u8]>),
    /// Something that the grammar does not allow, or that is in doubt.
    Void,
}

impl<'a> Argument<'a> {
    fn read(text: &'a [u8]) -> Self {
        match text {
            [] => Self::Absent,
            [b'=', b'"', quoted @ ..] => unquote(quoted).map_or(Self::Void, Self::Quoted),
            [b'=', token @ ..] if !token.is_empty() && token.iter().all(is_tchar) => {
                Self::Token(token)
            }
            _ => Self::Void,
        }
    }

    /// Returns the lifetime it states; one that is none is zero
    /// (RFC 9111 §4.2.1).
    fn seconds(&self) -> Duration {
        let text = match self {
            Self::Token(text) => text,
            Self::Quoted(text) => &**text,
            Self::Absent | Self::Void => return Duration::ZERO,
        };
        delta_seconds(text).unwrap_or(Duration::ZERO)
    }

    /// Returns the lifetime it states, no limit where it stands alone.
    fn limit(&self) -> Duration {
        match self {
            Self::Absent => Duration::MAX,
            stated => stated.seconds(),
        }
    }

    fn extent(&self) -> Extent {
        match self {
            Self::Quoted(list) => Extent::of_fields(list),
            Self::Absent | Self::Token(_) | Self::Void => Extent::Whole,
        }
    }

    fn is_sound(&self) -> bool {
        !matches!(self, Self::Void)
    }
}

/// Calls `take` with each directive of a list, its name in lower case.
fn each_directive(list: &[u8], mut take: impl FnMut(&[u8], &Argument<'_>)) {
    let mut members = fields::members(list);
    while let Some(member) = members.next() {
        let end = member.iter().position(|byte| !is_tchar(byte));
        let (name, text) = member
            .split_at_checked(end.unwrap_or(member.len()))
            .unwrap_or((member, &[]));
        let argument = if members.is_doubtful() {
            Argument::Void
        } else {
            Argument::read(text)
        };
        take(&name.to_ascii_lowercase(), &argument);
    }
}

/// The lifetime that stands for all longer ones (RFC 9111 §1.2.2).
pub(crate) const LONGEST: Duration = Duration::from_secs(1 << 31);

/// Reads non-negative seconds, [`LONGEST`] at most.
pub(crate) fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let seconds = text.iter().try_fold(0_u64, |seconds, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte & 0x0f))?;
        Some(seconds.saturating_mul(10).saturating_add(digit))
    })?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// Reads what follows the opening quote of a quoted string, up to a closing
/// one that ends the text (RFC 9110 §5.6.4).
fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = text.strip_suffix(b"\"")?;
    if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(*bytes.next()?),
            b'"' => return None,
            byte => plain.push(*byte),
        }
    }
    Some(Cow::Owned(plain))
}

/// The bytes of a token (RFC 9110 §5.6.2).
fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Of several values the smallest counts (RFC 9111 §4.2.1).
fn lower(value: &mut Option<Duration>, other: Duration) {
    *value = Some(value.map_or(other, |value| value.min(other)));
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn response(lines: &[&str]) -> ResponseDirectives {
        let lines: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
        ResponseDirectives::parse(&headers(&lines))
    }

    fn request(line: &str) -> RequestDirectives {
        RequestDirectives::parse(&headers(&[("cache-control", line)]))
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn names(names: &[&'static str]) -> Extent {
        Extent::Fields(names.iter().copied().map(HeaderName::from_static).collect())
    }

    #[test]
    fn max_age_is_read_and_what_is_no_number_is_zero() {
        let table = [
            // FR2
            ("max-age=3600", seconds(3600)),
            ("foobar, MAX-aGE=3600, bar=max-age", seconds(3600)),
            ("s-maxage=1", None),
            ("", None),
            // FR3
            ("max-age=0", seconds(0)),
            ("max-age=-1", seconds(0)),
            ("max-age", seconds(0)),
            ("max-age=", seconds(0)),
            // FR4
            ("max-age=2147483647", seconds(2_147_483_647)),
            ("max-age=2147483648", seconds(2_147_483_648)),
            ("max-age=2147483649", seconds(2_147_483_648)),
            ("max-age=99999999999", seconds(2_147_483_648)),
            ("max-age=99999999999999999999999", seconds(2_147_483_648)),
            // CP2
            ("max-age=003600", seconds(3600)),
            ("max-age='3600'", seconds(0)),
            // CP3
            ("max-age=3600, max-age=1", seconds(1)),
            ("max-age=1, max-age=3600", seconds(1)),
            ("max-age=3600, max-age=x", seconds(0)),
            ("max-age=\"3600\"", seconds(3600)),
            ("max-age=\"36\\00\"", seconds(3600)),
            ("max-age=\"\"", seconds(0)),
            ("max-age =3600", seconds(0)),
            ("max-age= 3600", seconds(0)),
            ("max-age=3600.0", seconds(0)),
            ("max-age=0.5", seconds(0)),
            ("max-age=+3600", seconds(0)),
            ("max-age=a3600", seconds(0)),
            ("max-age=3600a", seconds(0)),
            ("max-age=36 00", seconds(0)),
            ("max-age=3600;x=1", seconds(0)),
        ];
        for (line, expected) in table {
            assert_eq!(response(&[line]).max_age, expected, "{line}");
        }
    }

    #[test]
    fn quoted_text_is_never_a_directive() {
        // CP1
        for line in [
            r#"extension="max-age=3600", max-age=1"#,
            r#"max-age=1, extension="max-age=3600""#,
            r#"extension="no-store, private", max-age=1"#,
            r#"extension="\", no-store, \"", max-age=1"#,
            r#""no-store", max-age=1"#,
        ] {
            let expected = ResponseDirectives {
                max_age: seconds(1),
                ..ResponseDirectives::default()
            };
            assert_eq!(response(&[line]), expected, "{line}");
        }
        let spanning = response(&[r#"extension="a"#, r#"no-store, b", max-age=1"#]);
        assert_eq!((spanning.no_store, spanning.max_age), (false, seconds(1)));
    }

    #[test]
    fn behind_a_quote_without_end_directives_only_forbid() {
        let found = response(&[r#"extension="x, no-store, private, public, max-age=60"#]);
        let expected = ResponseDirectives {
            no_store: true,
            private: Extent::Whole,
            max_age: seconds(0),
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn all_lines_are_one_list() {
        // FR8
        let found = response(&["max-age=1", "s-maxage=60", "No-Store"]);
        let expected = ResponseDirectives {
            max_age: seconds(1),
            s_maxage: seconds(60),
            no_store: true,
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn malformed_members_still_forbid_and_allow_nothing() {
        let found = response(&[
            "no-store =1, no-cache x, private;, must-revalidate\u{e9}, proxy-revalidate=,\
             s-maxage =5, public x, immutable=, must-understand =1, stale-if-error= 5",
        ]);
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: Extent::Whole,
            private: Extent::Whole,
            must_revalidate: true,
            proxy_revalidate: true,
            s_maxage: seconds(0),
            stale_if_error: seconds(0),
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn directives_without_arguments_are_read_in_any_case() {
        // CR1, CR3
        let found = response(&["NO-STORE, No-Cache, PRIVATE, Must-Revalidate=x, Public, \
                                Proxy-Revalidate, MUST-understand, Immutable=\"x\""]);
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: Extent::Whole,
            private: Extent::Whole,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            public: true,
            immutable: true,
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_of_too_many_field_names_is_about_the_whole_response() {
        let list = |count: u32| (0..count).map(|n| format!("x-{n},")).collect::<String>();
        assert_eq!(Extent::of_fields(list(32).as_bytes()).fields().len(), 32);
        assert_eq!(Extent::of_fields(list(33).as_bytes()), Extent::Whole);
        assert_eq!(
            Extent::of_fields("a,".repeat(33).as_bytes()).fields().len(),
            1
        );
        let mut joined = Extent::of_fields(list(32).as_bytes());
        joined.widen(Extent::of_fields(b"another"));
        assert_eq!(joined, Extent::Whole);
    }

    #[test]
    fn only_a_quoted_list_of_field_names_qualifies() {
        // CR5
        let table = [
            (r#"private="Set-Cookie""#, names(&["set-cookie"])),
            (r#"private="a, , b""#, names(&["a", "b"])),
            (r#"private="b, A, a, b""#, names(&["a", "b"])),
            (r#"private="a", private="b""#, names(&["a", "b"])),
            (r#"private="a", private"#, Extent::Whole),
            (r#"private, private="a""#, Extent::Whole),
            (r#"private="""#, Extent::Whole),
            (r#"private="a, b c""#, Extent::Whole),
            (r#"private="a"b"#, Extent::Whole),
            ("private=a", Extent::Whole),
            ("public", Extent::Absent),
        ];
        for (line, expected) in table {
            assert_eq!(response(&[line]).private, expected, "{line}");
        }
    }

    #[test]
    fn request_directives_are_read() {
        // RQ1 to RQ4
        let found = request(
            "no-store, NO-CACHE, only-if-cached, max-age=5, min-fresh=6, min-fresh=8, \
             max-stale=7, stale-if-error=9, s-maxage=1, private",
        );
        let expected = RequestDirectives {
            no_store: true,
            no_cache: true,
            only_if_cached: true,
            max_age: seconds(5),
            min_fresh: seconds(8),
            max_stale: seconds(7),
            stale_if_error: seconds(9),
        };
        assert_eq!(found, expected);
        let kept = RequestDirectives {
            no_store: true,
            only_if_cached: true,
            ..RequestDirectives::default()
        };
        assert_eq!(found.not_obeyed(), kept);
    }

    #[test]
    fn max_stale_without_an_argument_has_no_limit() {
        let table = [
            ("max-stale", Some(Duration::MAX)),
            ("max-stale, max-stale=5", seconds(5)),
            ("max-stale=x", seconds(0)),
            ("max-stale =5", seconds(0)),
        ];
        for (line, expected) in table {
            assert_eq!(request(line).max_stale, expected, "{line}");
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        // PG1
        let no_cache = |lines: &[_]| RequestDirectives::parse(&headers(lines)).no_cache;
        assert!(no_cache(&[("pragma", "x, No-Cache")]));
        assert!(!no_cache(&[("pragma", "no-cache"), ("cache-control", "")]));
        assert!(!no_cache(&[("pragma", "no-cache=1")]));
        assert!(!no_cache(&[]));
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_value_parses(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(CACHE_CONTROL, value)]);
                ResponseDirectives::parse(&headers);
                RequestDirectives::parse(&headers);
            }
        }

        #[test]
        fn junk_never_hides_a_no_store_before_it(junk in "[ -~]{0,32}") {
            prop_assert!(response(&["no-store", &junk]).no_store);
        }

        #[test]
        fn seconds_are_digits_and_saturate(text in "[0-9]{1,30}|[ -~]{0,8}") {
            let expected = (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX).min(1 << 31)));
            prop_assert_eq!(delta_seconds(text.as_bytes()), expected);
        }
    }
}
