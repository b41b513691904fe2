//! A line chart in SVG: each figure in relation to its first size, both axes logarithmic, beside n log n and log n.

use super::study::{Rule, Study};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
/// Room for the legend.
const RIGHT: f64 = 330.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that people with any kind of colour vision can tell apart (Okabe and Ito), and darker ones behind them.
const COLOURS: [&str; 10] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31", "#5254a3", "#637939",
    "#843c39",
];

/// Where logarithms of size and growth lie on the picture.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let part = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low).max(f64::MIN_POSITIVE);
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (LEFT + part(x, self.x) * width, TOP + (1.0 - part(y, self.y)) * height)
    }

    fn line(&self, points: &[(f64, f64)], style: &str) -> String {
        let places: Vec<String> =
            points.iter().map(|point| self.place(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        format!("<polyline points=\"{}\" fill=\"none\" {style}/>\n", places.join(" "))
    }
}

/// The chart.
pub(super) fn draw(study: &Study) -> String {
    let sizes: Vec<f64> = study.steps.iter().map(|step| step.n.log10()).collect();
    let curves: Vec<(&str, Vec<(f64, f64)>)> = study
        .measures
        .iter()
        .filter(|one| one.rule != Rule::Shown)
        .map(|one| (one.title.as_str(), curve(&sizes, &one.values)))
        .collect();
    let rules = [("n log n", true), ("log n", false)].map(|(name, is_total)| {
        let at = |step: &super::study::Step| {
            let log = (1.0 + step.n).log2();
            Some(if is_total { step.n * log } else { log })
        };
        let values: Vec<Option<f64>> = study.steps.iter().map(at).collect();
        (name, curve(&sizes, &values))
    });
    let heights = || curves.iter().chain(&rules).flat_map(|(_, points)| points).map(|(_, y)| *y);
    let low = heights().fold(0.0, f64::min).floor();
    let high = heights().fold(1.0, f64::max).ceil();
    let x = (sizes.first().copied().unwrap_or(0.0), sizes.last().copied().unwrap_or(1.0));
    let frame = Frame { x, y: (low, high) };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}: cost in relation to the first size</text>\n",
        escape(&study.title)
    );
    text.push_str(&grid(study, &frame, &sizes));
    for (index, (name, points)) in rules.iter().enumerate() {
        text.push_str(&frame.line(points, "stroke=\"#999999\" stroke-width=\"3\" stroke-dasharray=\"6 4\""));
        let (x, y) = frame.place(*points.last().unwrap_or(&(0.0, 0.0)));
        text.push_str(&label(x + 6.0, y + 4.0 - index as f64, "#777777", name));
    }
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        text.push_str(&frame.line(points, &format!("stroke=\"{colour}\" stroke-width=\"1.6\"")));
        for point in points {
            let (x, y) = frame.place(*point);
            text.push_str(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"));
        }
        let y = TOP + 8.0 + index as f64 * 18.0;
        text.push_str(&label(WIDTH - RIGHT + 64.0, y, colour, &format!("\u{25cf} {name}")));
    }
    text.push_str("</svg>\n");
    text
}

/// Logarithms of the sizes, and of the values in relation to the first.
fn curve(sizes: &[f64], values: &[Option<f64>]) -> Vec<(f64, f64)> {
    let known =
        || sizes.iter().zip(values).filter_map(|(x, value)| Some((*x, (*value).filter(|v| *v > 0.0)?)));
    let Some((_, first)) = known().next() else { return Vec::new() };
    known().map(|(x, value)| (x, (value / first).log10())).collect()
}

fn grid(study: &Study, frame: &Frame, sizes: &[f64]) -> String {
    let mut text = String::new();
    let (low, high) = frame.y;
    let mut power = low;
    while power <= high {
        let (_, y) = frame.place((frame.x.0, power));
        text.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{}x</text>\n",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            10f64.powf(power)
        ));
        power += 1.0;
    }
    for (step, x) in study.steps.iter().zip(sizes) {
        let (x, _) = frame.place((*x, low));
        text.push_str(&format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>\n",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            escape(&step.label)
        ));
    }
    text
}

fn label(x: f64, y: f64, colour: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>\n", escape(words))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::study::tests::sample;

    #[test]
    fn every_figure_that_is_judged_is_a_line_and_texts_are_escaped() {
        let text = draw(&sample());
        assert_eq!(text.matches("<polyline").count(), 4 + 2);
        assert_eq!(text.matches("<circle").count(), 4 * 3);
        assert!(text.contains("Many &lt;things&gt;") && text.contains("each looks at all"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        let mut study = sample();
        study.measures.clear();
        study.steps.clear();
        let text = draw(&study);
        assert!(text.ends_with("</svg>\n") && !text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn a_line_begins_at_one_and_larger_is_higher() {
        let points = curve(&[3.0, 4.0, 5.0], &[None, Some(2.0), Some(20.0)]);
        assert_eq!(points[0], (4.0, 0.0));
        assert!((points[1].1 - 1.0).abs() < 1e-9);
        let frame = Frame { x: (0.0, 1.0), y: (0.0, 1.0) };
        assert!(frame.place((0.0, 1.0)).1 < frame.place((0.0, 0.0)).1);
    }
}
