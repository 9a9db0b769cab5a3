//! A drawing of curves with logarithmic axes, as SVG: small, with no font and no library.
//!
//! Colours are told apart by those who see few, too, and lie on white, so that a dark page shows
//! the same. What lies between the least and the most of a point is a thin line through it.

use std::fmt::Write;

/// The drawing, and the part of it that has the curves: pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 58.0;

/// Blue, vermilion, green, purple: after Okabe and Ito.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#aa4499"];

/// A point of a curve: where, how much in the middle, and the least and the most of it.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub at: f64,
    pub middle: f64,
    pub least: f64,
    pub most: f64,
}

/// One curve of a drawing.
pub struct Curve<'a> {
    pub name: &'a str,
    pub points: Vec<Point>,
}

/// What is to be drawn; both axes say their unit.
pub struct Chart<'a> {
    pub title: &'a str,
    pub across: &'a str,
    pub up: &'a str,
    pub curves: Vec<Curve<'a>>,
}

/// A logarithmic axis: from, to, and where that is in the drawing. Nothing has a place of its own,
/// half a decade before one, where it is there.
struct Axis {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    zero: bool,
}

impl Axis {
    /// Whole decades around all of these.
    fn new(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Axis {
        let (mut least, mut most, mut zero) = (f64::INFINITY, 0.0_f64, false);
        for value in values.filter(|value| value.is_finite()) {
            if value > 0.0 {
                (least, most) = (least.min(value), most.max(value));
            }
            zero |= value == 0.0;
        }
        if most == 0.0 {
            (least, most) = (1.0, 10.0);
        }
        let from = if zero { least.min(1.0) } else { least };
        let (from, mut to) = (from.log10().floor(), most.log10().ceil());
        if to <= from {
            to = from + 1.0;
        }
        Axis { from: if zero { from - 0.5 } else { from }, to, begin, end, zero }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match value > 0.0 {
            true => (value.log10() - self.from) / (self.to - self.from),
            false => 0.0,
        };
        self.begin + part * (self.end - self.begin)
    }

    /// Where a line is drawn, and what is said of it: each decade, nothing, and the 2 and 5 of few.
    fn ticks(&self) -> Vec<(f64, String)> {
        let decades = (self.from.ceil() as i32)..=(self.to.floor() as i32);
        let few = self.to - self.from <= 2.0;
        let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let of_decade = |decade: i32| steps.iter().map(move |step| step * 10_f64.powi(decade));
        let ticks = decades.flat_map(of_decade).filter(|tick| tick.log10() <= self.to + 1e-9);
        let zero = self.zero.then_some(0.0);
        zero.into_iter().chain(ticks).map(|tick| (self.place(tick), said(tick))).collect()
    }
}

/// A round number, as an axis says it.
fn said(number: f64) -> String {
    match number {
        1e6.. => format!("{}M", number / 1e6),
        1e3.. => format!("{}k", number / 1e3),
        _ => format!("{}", (number * 1e6).round() / 1e6),
    }
}

impl Chart<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let across = Axis::new(points().map(|point| point.at), LEFT, WIDTH - RIGHT);
        let up = Axis::new(points().flat_map(|point| [point.least, point.most]), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            escaped(self.title),
            escaped(self.title)
        );
        self.frame(&mut svg, &across, &up);
        for (number, curve) in self.curves.iter().enumerate() {
            curve.draw(&mut svg, COLOURS[number % COLOURS.len()], number, &across, &up);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The lines of both axes, and what they are.
    fn frame(&self, svg: &mut String, across: &Axis, up: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (x, said) in across.ticks() {
            put(svg, &format!("<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>"));
            put(svg, &text(x, bottom + 18.0, "middle", &said));
        }
        for (y, said) in up.ticks() {
            put(svg, &format!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>"));
            put(svg, &text(LEFT - 8.0, y + 4.0, "end", &said));
        }
        put(svg, &format!("<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#222\"/>"));
        put(svg, &text((LEFT + right) / 2.0, HEIGHT - 14.0, "middle", self.across));
        let middle = (TOP + bottom) / 2.0;
        let turned = format!("<g transform=\"translate(18 {middle}) rotate(-90)\">");
        put(svg, &format!("{turned}{}</g>", text(0.0, 0.0, "middle", self.up)));
    }
}

impl Curve<'_> {
    fn draw(&self, svg: &mut String, colour: &str, number: usize, across: &Axis, up: &Axis) {
        let points: Vec<&Point> = self.points.iter().filter(|point| point.middle > 0.0).collect();
        let mut path = String::new();
        for point in &points {
            let (x, y) = (across.place(point.at), up.place(point.middle));
            let (least, most) = (up.place(point.least), up.place(point.most));
            // Writing to a string cannot fail.
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
            put(svg, &format!("<path d=\"M{x:.1} {least:.1}V{most:.1}\" stroke=\"{colour}\"/>"));
            put(svg, &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
        }
        put(svg, &format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
        let x = LEFT + 6.0 + 160.0 * number as f64;
        put(svg, &format!("<path d=\"M{x} 40h22\" stroke=\"{colour}\" stroke-width=\"3\"/>"));
        put(svg, &text(x + 28.0, 44.0, "start", self.name));
    }
}

fn put(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
