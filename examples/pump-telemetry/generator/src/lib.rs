//! The readings of the pump-telemetry example: four thousand of one pump in three modes, with a few
//! faults that no gauge shows by itself. The same seed gives the same bytes.

mod draws;

use std::fmt::Write as _;

pub use draws::Draws;

/// The seed of the committed file.
pub const SEED: u64 = 5;

/// Readings in `data/readings.csv`.
pub const READINGS: u32 = 4_000;

/// One reading in so many is of a faulty pump.
const FAULTY_ONE_IN: u64 = 50;

/// What is wrong with the pump.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Less comes out than the speed foretells, at too little pressure.
    Leak,
    /// It shakes and draws more current, at whatever speed.
    Bearing,
    /// The heat does not follow the current.
    Fouling,
}

/// How the pump is run: name, revolutions a minute, and how much they vary.
const MODES: [(&str, f64, f64); 3] = [
    ("eco", 900.0, 30.0),
    ("normal", 1_450.0, 45.0),
    ("boost", 2_100.0, 60.0),
];

/// `readings.csv`: a line for each reading. Faults are within what each gauge shows in one mode or
/// another; they are in how the gauges go together.
pub fn readings_csv(seed: u64) -> String {
    let mut draws = Draws::new(seed);
    let mut csv =
        "reading,mode,speed,flow,pressure,current,temperature,vibration,state\n".to_owned();
    let mut mode = 1;
    for reading in 1..=READINGS {
        if draws.below(40) == 0 {
            mode = draws.below(3) as usize;
        }
        let (name, middle, spread) = MODES[mode];
        let fault = match draws.below(FAULTY_ONE_IN * 3) {
            0 => Fault::Leak,
            1 => Fault::Bearing,
            2 => Fault::Fouling,
            _ => Fault::None,
        };
        let speed = middle + spread * draws.normal();
        let load = speed / 1_450.0;
        let is = |wanted: Fault| f64::from(u8::from(fault == wanted));
        let flow = 42.0 * load * (1.0 - 0.18 * is(Fault::Leak)) + 0.8 * draws.normal();
        let pressure = 3.1 * load * load * (1.0 - 0.15 * is(Fault::Leak)) + 0.08 * draws.normal();
        let current = 11.0 * load + 1.5 * is(Fault::Bearing) + 0.25 * draws.normal();
        let temperature = 24.0 + 2.6 * current + 9.0 * is(Fault::Fouling) + 0.9 * draws.normal();
        let vibration = 1.1 + 0.9 * load + 0.7 * is(Fault::Bearing) + 0.09 * draws.normal();
        let state = if fault == Fault::None { "ok" } else { "fault" };
        // A text into a text does not fail.
        let _ = writeln!(
            csv,
            "{reading},{name},{speed:.0},{flow:.2},{pressure:.3},{current:.2},{temperature:.1},{vibration:.3},{state}"
        );
    }
    csv
}
