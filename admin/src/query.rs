//! Queries of lists: `?limit=&after=` and `?key=value` filters.

use crate::problem::Problem;

/// Rows of a page when none is asked for.
const LIMIT: u32 = 100;
/// Most rows of a page; bounds the answer.
const LIMIT_MAX: u32 = 1000;
/// Most filters of one list.
const FILTERS_MAX: usize = 16;

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Most rows.
    pub(crate) limit: u32,
    /// Rows behind this key; empty = from the start.
    pub(crate) after: String,
    /// Equalities: SQL expression of a known filter, and the text asked for.
    pub(crate) filters: Vec<(&'static str, String)>,
}

impl Page {
    /// Parses a decoded query. `known` maps a filter's name to its SQL expression.
    pub(crate) fn parse(
        pairs: Vec<(String, String)>,
        known: &'static [(&'static str, &'static str)],
    ) -> Result<Self, Problem> {
        let mut page = Self { limit: LIMIT, after: String::new(), filters: Vec::new() };
        for (key, value) in pairs {
            match key.as_str() {
                "limit" => {
                    page.limit =
                        value.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n)).ok_or_else(|| {
                            Problem::field("limit", format!("must be a number from 1 to {LIMIT_MAX}"))
                        })?;
                }
                "after" => page.after = value,
                _ => {
                    let Some((_, sql)) = known.iter().find(|(name, _)| *name == key) else {
                        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                        let key: String = key.chars().take(40).collect();
                        return Err(Problem::field(
                            key,
                            format!("no such filter; known are {}", names.join(", ")),
                        ));
                    };
                    if page.filters.len() == FILTERS_MAX {
                        return Err(Problem::request("too many filters"));
                    }
                    page.filters.push((sql, value));
                }
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[(&str, &str)] = &[("name", "v.name")];

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn pages() {
        let page = Page::parse(pairs(&[("limit", "7"), ("after", "x"), ("name", "a' OR 1")]), KNOWN).unwrap();
        assert_eq!(page, Page { limit: 7, after: "x".into(), filters: vec![("v.name", "a' OR 1".into())] });
        for bad in [("limit", "0"), ("limit", "1001"), ("limit", "-1"), ("limit", "x"), ("v.name", "1")] {
            assert!(Page::parse(pairs(&[bad]), KNOWN).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_answered(list in proptest::collection::vec(any::<(String, String)>(), 0..40)) {
            let _ = Page::parse(list, KNOWN);
        }
    }
}
