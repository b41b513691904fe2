//! A study: figures at growing sizes, and whether they grow as they may.

use serde::{Deserialize, Serialize};

/// What a step may cost beyond the rule: figures of a machine that others work on move by as much (README, "Spread").
pub(super) const NOISE: f64 = 1.5;

/// One study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Study {
    pub(super) id: String,
    pub(super) title: String,
    /// What is done, in a few sentences.
    pub(super) about: String,
    /// When, on what, by which programs.
    pub(super) run: String,
    pub(super) steps: Vec<Step>,
    pub(super) measures: Vec<Measure>,
}

/// One size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// As shown.
    pub(super) label: String,
    /// Things there are: what n is in n log n.
    pub(super) n: f64,
}

/// One figure over all sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measure {
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) rule: Rule,
    /// One for each step; none where it failed or does not apply.
    pub(super) values: Vec<Option<f64>>,
}

/// How a figure may grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Rule {
    /// It is a cost of all n together: no step worse than n log n.
    Total,
    /// It is a cost of one of n: log n, so that n of them are n log n.
    Each,
    /// At most so much at every size.
    AtMost(f64),
    /// Shown, not judged.
    Shown,
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Short,
    Shown,
}

impl Verdict {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Short => "**short**",
            Self::Shown => "-",
        }
    }
}

/// One step of a figure: how many times as much it became, and how many times it may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) factor: f64,
    pub(super) allowed: f64,
}

impl Growth {
    pub(super) fn is_met(self) -> bool {
        self.factor <= self.allowed * NOISE
    }
}

/// The logarithm in n log n; of n = 1 it is not zero.
fn log(n: f64) -> f64 {
    (1.0 + n).log2()
}

impl Measure {
    /// Of steps that follow each other and were both measured.
    pub(super) fn growth(&self, steps: &[Step]) -> Vec<Growth> {
        let allowed = |from: f64, to: f64| match self.rule {
            Rule::Total => Some(to * log(to) / (from * log(from))),
            Rule::Each => Some(log(to) / log(from)),
            Rule::AtMost(_) | Rule::Shown => None,
        };
        let known: Vec<(f64, f64)> = steps
            .iter()
            .zip(&self.values)
            .filter_map(|(step, value)| Some((step.n, (*value).filter(|value| *value > 0.0)?)))
            .collect();
        known
            .windows(2)
            .filter_map(|pair| {
                let [(from, before), (to, after)] = pair else { return None };
                Some(Growth { factor: after / before, allowed: allowed(*from, *to)? })
            })
            .collect()
    }

    pub(super) fn verdict(&self, steps: &[Step]) -> Verdict {
        match self.rule {
            Rule::Shown => Verdict::Shown,
            Rule::AtMost(bound) => {
                let mut known = self.values.iter().flatten();
                match known.clone().next() {
                    None => Verdict::Shown,
                    Some(_) if known.all(|value| *value <= bound) => Verdict::Pass,
                    Some(_) => Verdict::Short,
                }
            }
            Rule::Total | Rule::Each => {
                let growth = self.growth(steps);
                match growth.iter().all(|step| step.is_met()) {
                    _ if growth.is_empty() => Verdict::Shown,
                    true => Verdict::Pass,
                    false => Verdict::Short,
                }
            }
        }
    }
}

impl Study {
    pub(super) fn new(id: &str, title: &str, about: &str) -> Self {
        let [id, title, about] = [id, title, about].map(str::to_owned);
        Self { id, title, about, run: String::new(), steps: Vec::new(), measures: Vec::new() }
    }

    /// A further size; figures that are noted belong to it.
    pub(super) fn step(&mut self, label: &str, n: f64) {
        self.steps.push(Step { label: label.to_owned(), n });
    }

    /// Notes a figure of the last size.
    pub(super) fn note(&mut self, title: &str, unit: &str, rule: Rule, value: f64) {
        let steps = self.steps.len();
        if !self.measures.iter().any(|one| one.title == title) {
            let (title, unit) = (title.to_owned(), unit.to_owned());
            self.measures.push(Measure { title, unit, rule, values: Vec::new() });
        }
        for measure in &mut self.measures {
            measure.values.resize(steps, None);
            if measure.title == title {
                measure.values[steps - 1] = Some(value);
            }
        }
        eprintln!("scale: {} at {}: {title} {value:.2} {unit}", self.id, self.steps[steps - 1].label);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two figures that grow as they may and one that does not.
    pub(crate) fn sample() -> Study {
        let mut study = Study::new("many", "Many <things>", "Things are made.");
        for (index, n) in [1_000.0, 10_000.0, 100_000.0].into_iter().enumerate() {
            let index = index as f64;
            study.step(&format!("{n}"), n);
            study.note("one of them", "us", Rule::Each, 10.0 + index);
            study.note("all of them", "MiB", Rule::Total, 5.0 * 10f64.powf(index));
            study.note("each looks at all", "us", Rule::Each, 10f64.powf(index));
            study.note("start", "s", Rule::AtMost(5.0), 1.0 + index);
        }
        study
    }

    fn measure(rule: Rule, values: &[Option<f64>]) -> Measure {
        Measure { title: String::new(), unit: String::new(), rule, values: values.to_vec() }
    }

    fn steps(sizes: &[f64]) -> Vec<Step> {
        sizes.iter().map(|n| Step { label: String::new(), n: *n }).collect()
    }

    #[test]
    fn n_log_n_passes_and_n_squared_falls_short() {
        let sizes = steps(&[1e3, 1e4, 1e5, 1e6]);
        let of = |rule, cost: fn(f64) -> f64| {
            let values: Vec<_> = sizes.iter().map(|step| Some(cost(step.n))).collect();
            measure(rule, &values).verdict(&sizes)
        };
        assert_eq!(of(Rule::Total, |n| n * n.log2()), Verdict::Pass);
        assert_eq!(of(Rule::Total, |n| n * n.sqrt()), Verdict::Short);
        assert_eq!(of(Rule::Total, |n| n * n), Verdict::Short);
        assert_eq!(of(Rule::Each, |_| 7.0), Verdict::Pass);
        assert_eq!(of(Rule::Each, f64::log2), Verdict::Pass);
        assert_eq!(of(Rule::Each, f64::sqrt), Verdict::Short);
    }

    #[test]
    fn one_bad_step_is_enough_and_a_missing_one_is_bridged() {
        let sizes = steps(&[1.0, 10.0, 100.0]);
        let each = |values: &[Option<f64>]| measure(Rule::Each, values).verdict(&sizes);
        assert_eq!(each(&[Some(1.0), Some(9.0), Some(9.0)]), Verdict::Short);
        assert_eq!(each(&[Some(1.0), None, Some(100.0)]), Verdict::Short);
        assert_eq!(each(&[Some(1.0), None, Some(2.0)]), Verdict::Pass);
        assert_eq!(each(&[None, None, Some(2.0)]), Verdict::Shown, "nothing to judge");
    }

    #[test]
    fn a_bound_holds_at_every_size() {
        let sizes = steps(&[1.0, 10.0]);
        let of = |values: &[Option<f64>]| measure(Rule::AtMost(5.0), values).verdict(&sizes);
        assert_eq!(of(&[Some(1.0), Some(5.0)]), Verdict::Pass);
        assert_eq!(of(&[Some(5.1), Some(1.0)]), Verdict::Short);
        assert_eq!(of(&[None, None]), Verdict::Shown);
    }

    #[test]
    fn figures_stand_at_their_step() {
        let mut study = sample();
        study.step("more", 1e6);
        study.note("new", "us", Rule::Shown, 1.0);
        let of = |title: &str| study.measures.iter().find(|one| one.title == title).unwrap();
        assert_eq!(of("new").values, [None, None, None, Some(1.0)]);
        assert_eq!(of("start").values, [Some(1.0), Some(2.0), Some(3.0), None]);
    }
}
