//! The choice among a URI's stored responses (RFC 9111 §4.1).

use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderName};

use super::nominated::{Encoding, Nominated, NormalForm, encode, fields};
use super::{Vary, weighted};
use crate::semantics::date::HttpDate;
use crate::semantics::fields::joined;

/// What the choice needs to know of a stored response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) vary: &'a Vary,
    /// What the request that it answered held in the fields of `vary`.
    pub(crate) nominated: &'a Nominated,
    pub(crate) form: NormalForm,
    pub(crate) date: HttpDate,
    pub(crate) content_language: Option<&'a [u8]>,
}

/// Returns the place of the stored response that a request selects.
///
/// Among several that match, one with a `Vary` goes before one without (a
/// default response often forgets it), then the language that the request
/// weighs highest, then the most recent `Date`. If none matches, one in the
/// language that the request likes best does, where languages are compared by
/// meaning.
pub(crate) fn select<'a>(
    candidates: impl Iterator<Item = Candidate<'a>> + Clone,
    request: &HeaderMap,
) -> Option<usize> {
    let mut presented = Presented::new(request);
    let matching = candidates
        .clone()
        .enumerate()
        .filter(|(_, candidate)| presented.matches(candidate))
        .reduce(|best, next| preferred(best, next, request));
    matching
        .or_else(|| most_recent_in_favourite_language(candidates, request))
        .map(|(place, _)| place)
}

type Placed<'a> = (usize, Candidate<'a>);

/// A request as the candidates see it: its nominated fields are encoded once
/// for all candidates that nominate the same.
struct Presented<'r, 'a> {
    request: &'r HeaderMap,
    encoded: Option<(&'a [HeaderName], NormalForm, Encoding)>,
}

impl<'r, 'a> Presented<'r, 'a> {
    fn new(request: &'r HeaderMap) -> Self {
        Self {
            request,
            encoded: None,
        }
    }

    fn matches(&mut self, candidate: &Candidate<'a>) -> bool {
        let form = candidate.form;
        let names = match candidate.vary.fields() {
            None => return false,
            Some([]) => return true,
            Some(names) => names,
        };
        let known = matches!(&self.encoded, Some((n, f, _)) if *n == names && *f == form);
        if !known {
            self.encoded = Some((names, form, encode(names, self.request, form)));
        }
        let stored = candidate.nominated.as_bytes();
        matches!(&self.encoded, Some((.., encoding)) if encoding.as_slice() == stored)
    }
}

fn preferred<'a>(a: Placed<'a>, b: Placed<'a>, request: &HeaderMap) -> Placed<'a> {
    let accept = joined(request, &ACCEPT_LANGUAGE).unwrap_or_default();
    let rank = |candidate: &Candidate<'_>| {
        let weight = |language| weighted::weight_of_language(&accept, language);
        let language = candidate.content_language.and_then(weight);
        (*candidate.vary != Vary::None, language, candidate.date)
    };
    if rank(&b.1) > rank(&a.1) { b } else { a }
}

fn most_recent_in_favourite_language<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    request: &HeaderMap,
) -> Option<Placed<'a>> {
    let accept = joined(request, &ACCEPT_LANGUAGE)?;
    let favourite = weighted::favourite(&accept)?;
    candidates
        .enumerate()
        .filter(|(_, candidate)| {
            candidate.form != NormalForm::Lists
                && candidate
                    .content_language
                    .is_some_and(|language| language.eq_ignore_ascii_case(favourite))
                && differs_only_in_language(candidate, request)
        })
        .max_by_key(|(_, candidate)| candidate.date)
}

fn differs_only_in_language(candidate: &Candidate<'_>, request: &HeaderMap) -> bool {
    let Some(names) = candidate.vary.fields() else {
        return false;
    };
    let presented = encode(names, request, candidate.form);
    let stored = candidate.nominated.as_bytes();
    let is_other = |(name, _): &(&[u8], _)| *name != ACCEPT_LANGUAGE.as_str().as_bytes();
    fields(&presented)
        .filter(is_other)
        .eq(fields(stored).filter(is_other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;

    /// A stored response: the response's fields, its request's, its date.
    struct Stored(Vary, Nominated, NormalForm, HttpDate, Option<Vec<u8>>);

    type Lines = [(&'static str, &'static str)];

    fn stored(response: &Lines, request: &Lines, date: i64) -> Stored {
        let response = headers(response);
        let vary = Vary::parse(&response);
        let form = NormalForm::for_response(true, &response);
        let names = vary.fields().unwrap_or_default();
        let nominated = Nominated::new(names, &headers(request), form);
        let language = response.get("content-language");
        let language = language.map(|value| value.as_bytes().to_vec());
        Stored(vary, nominated, form, HttpDate(date), language)
    }

    fn selected(stored: &[Stored], request: &Lines) -> Option<usize> {
        let candidates = stored.iter().map(|stored| Candidate {
            vary: &stored.0,
            nominated: &stored.1,
            form: stored.2,
            date: stored.3,
            content_language: stored.4.as_deref(),
        });
        select(candidates, &headers(request))
    }

    #[test]
    fn variants_stand_side_by_side() {
        // VA1, VA2
        let variants = [
            stored(&[("vary", "foo")], &[("foo", "1")], 0),
            stored(&[("vary", "foo")], &[("foo", "2")], 0),
            stored(&[("vary", "foo")], &[], 0),
        ];
        assert_eq!(selected(&variants, &[("foo", "1"), ("bar", "x")]), Some(0));
        assert_eq!(selected(&variants, &[("foo", "2")]), Some(1));
        assert_eq!(selected(&variants, &[]), Some(2));
        assert_eq!(selected(&variants, &[("foo", "3")]), None);
    }

    #[test]
    fn vary_asterisk_is_never_selected() {
        // VA6
        assert_eq!(selected(&[stored(&[("vary", "*")], &[], 0)], &[]), None);
    }

    #[test]
    fn a_response_without_vary_matches_but_goes_last() {
        let default = || stored(&[], &[], 9);
        let varying = || stored(&[("vary", "foo")], &[("foo", "1")], 0);
        assert_eq!(selected(&[default()], &[("foo", "1")]), Some(0));
        for (variants, place) in [([default(), varying()], 1), ([varying(), default()], 0)] {
            assert_eq!(selected(&variants, &[("foo", "1")]), Some(place));
        }
        assert_eq!(selected(&[default(), varying()], &[("foo", "2")]), Some(0));
    }

    #[test]
    fn of_two_that_match_the_most_recent_is_selected() {
        let variant = |vary, date| stored(&[("vary", vary)], &[("foo", "1"), ("bar", "1")], date);
        let request = [("foo", "1"), ("bar", "1")];
        let variants = [variant("foo", 1), variant("bar", 3), variant("foo, bar", 2)];
        assert_eq!(selected(&variants, &request), Some(1));
    }

    #[test]
    fn of_two_that_match_the_language_with_more_weight_is_selected() {
        let variant = |language, date| {
            let response = [("vary", "foo"), ("content-language", language)];
            stored(&response, &[("foo", "1")], date)
        };
        let variants = [variant("en", 9), variant("de", 1)];
        let request = [("foo", "1"), ("accept-language", "en;q=0.5, de;q=0.8")];
        assert_eq!(selected(&variants, &request), Some(1));
        assert_eq!(selected(&variants, &[("foo", "1")]), Some(0));
    }

    #[test]
    fn the_variant_in_the_favourite_language_is_selected_though_the_field_differs() {
        // VA5
        let variant = |language, accept| {
            let vary = "accept-language, foo";
            let response = [("vary", vary), ("content-language", language)];
            stored(&response, &[("accept-language", accept), ("foo", "1")], 0)
        };
        let variants = [variant("en", "en, de"), variant("de", "de, en")];
        for (accept, place) in [
            ("de", Some(1)),
            ("DE, en;q=0.5", Some(1)),
            ("fr;q=0.1, en;q=0.2", Some(0)),
            ("fr, en;q=0.5", None),
            ("de;q=0.5, en;q=0.5", None),
            ("de;q=0", None),
        ] {
            let request = [("accept-language", accept), ("foo", "1")];
            assert_eq!(selected(&variants, &request), place, "{accept}");
            let request = [("accept-language", accept), ("foo", "2")];
            assert_eq!(selected(&variants, &request), None, "{accept}");
        }
        assert_eq!(selected(&variants, &[("foo", "1")]), None);
    }

    #[test]
    fn without_normalisation_no_language_is_chosen() {
        let response = [("vary", "accept-language"), ("content-language", "de")];
        let mut variant = stored(&response, &[("accept-language", "de, en")], 0);
        variant.2 = NormalForm::Lists;
        assert_eq!(selected(&[variant], &[("accept-language", "de")]), None);
    }
}
