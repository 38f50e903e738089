//! Writes the weather notes of the example: the same bytes each time.

use std::path::Path;
use std::{fs, io};

/// Notes in the file.
const NOTES: u64 = 1_500;

const PLACES: [&str; 6] = [
    "the coast",
    "the hills",
    "the valley",
    "the north",
    "the lakes",
    "town",
];
const SKIES: [&str; 5] = ["clear", "cloudy", "foggy", "rainy", "stormy"];
const WINDS: [&str; 4] = ["calm", "a light breeze", "a fresh wind", "a gale"];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// Splitmix64 (Steele, Lea and Flood 2014) of a place in the sequence.
fn draw(at: u64) -> u64 {
    let mut state = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x5eed);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn note(number: u64) -> String {
    let pick = |salt: u64, of: usize| (draw(number * 8 + salt) % of as u64) as usize;
    let sky = pick(0, SKIES.len());
    // What is worn depends on the sky, and how warm it is too: something to learn.
    let (advice, warmest) = match SKIES[sky] {
        "clear" => ("Sunglasses will do.", 28),
        "cloudy" => ("A jacket will do.", 20),
        "foggy" => ("Drive slowly.", 12),
        "rainy" => ("Take an umbrella.", 15),
        _ => ("Stay inside.", 10),
    };
    format!(
        "{}: {} over {}, {}, {} degrees.\n{advice}",
        DAYS[pick(1, DAYS.len())],
        SKIES[sky],
        PLACES[pick(2, PLACES.len())],
        WINDS[pick(3, WINDS.len())],
        warmest - pick(4, 8),
    )
}

fn notes() -> String {
    let notes: Vec<String> = (0..NOTES).map(note).collect();
    notes.join("\n\n") + "\n"
}

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/notes.txt")
}

fn main() -> io::Result<()> {
    fs::write(file(), notes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_what_is_written() {
        let committed = fs::read_to_string(file()).expect("the file");
        assert!(
            committed == notes(),
            "run `cargo run -p weather-notes-data`"
        );
    }
}
