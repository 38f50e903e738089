//! The people behind the files, before anybody typed them in.

use crate::philox::Draws;

/// Where the bank has always been strict. Most of those who live here were born abroad.
const STRICT_DISTRICTS: [&str; 2] = ["Harbour", "Millside"];

/// Days late at which the collections desk writes a loan off: in the strict districts, and elsewhere.
const WRITTEN_OFF_AFTER_DAYS: (f64, f64) = (30.0, 90.0);

/// One applicant and how the loan ended.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// Unique in the bank, whichever way the application came.
    pub id: String,
    /// Days since 2022-01-01.
    pub opened_day: u32,
    /// In whole years on the day of the application.
    pub age: u32,
    /// A woman, else a man.
    pub woman: bool,
    /// Born abroad. No model is ever shown this; it is what the slices are by.
    pub born_abroad: bool,
    /// A part of the town.
    pub district: &'static str,
    /// A year, before tax.
    pub income: f64,
    /// Months in the present job.
    pub employed_months: u32,
    /// What is asked for.
    pub loan_amount: u32,
    /// What for.
    pub purpose: &'static str,
    /// What is owed already.
    pub existing_debts: u32,
    /// What the books say.
    pub repaid: bool,
}

impl Applicant {
    /// The applicant of a number.
    ///
    /// People born abroad earn a little less here and pay back just as well at the same income.
    /// What the books say is another matter: in the strict districts a loan is written off
    /// after 30 days instead of 90. That is the bias, and the district is its proxy.
    #[must_use]
    pub fn draw(seed: u64, number: u32) -> Self {
        let mut draws = Draws::new(seed, 0, number);
        let born_abroad = draws.chance(0.36);
        let district = if born_abroad {
            draws.pick(&[
                ("Harbour", 0.44),
                ("Millside", 0.38),
                ("Oldtown", 0.06),
                ("Northgate", 0.05),
                ("Parkview", 0.03),
                ("Riverbank", 0.04),
            ])
        } else {
            draws.pick(&[
                ("Harbour", 0.04),
                ("Millside", 0.05),
                ("Oldtown", 0.27),
                ("Northgate", 0.24),
                ("Parkview", 0.19),
                ("Riverbank", 0.21),
            ])
        };
        let woman = draws.chance(0.48);
        let age = (19.0 + 26.0 * draws.uniform() + 22.0 * draws.uniform() * draws.uniform()) as u32
            + draws.whole(0, 6);

        let skew = draws.normal();
        let income = (36_000.0 + 13_500.0 * skew + 4_000.0 * skew * skew
            - if born_abroad { 3_000.0 } else { 0.0 }
            + 220.0 * f64::from(age))
        .max(12_000.0);
        let income = (income / 120.0).round() * 120.0;
        let employed_months =
            (f64::from(age - 18) * 12.0 * draws.uniform() * draws.uniform().sqrt()) as u32;
        let purpose = draws.pick(&[
            ("car", 0.34),
            ("home", 0.27),
            ("education", 0.13),
            ("business", 0.11),
            ("furniture", 0.15),
        ]);
        let usual = match purpose {
            "car" => 14_000.0,
            "home" => 24_000.0,
            "education" => 9_000.0,
            "business" => 21_000.0,
            _ => 5_000.0,
        };
        let loan_amount = ((usual * (0.4 + 1.4 * draws.uniform()) / 250.0).round() * 250.0) as u32;
        let existing_debts = if draws.chance(0.35) {
            0
        } else {
            ((income * 0.55 * draws.uniform() * draws.uniform() / 100.0).round() * 100.0) as u32
        };

        let days_late = {
            let burden = (f64::from(loan_amount) / 4.0 + f64::from(existing_debts)) / income;
            let settled = f64::from(employed_months.min(120)) / 120.0;
            let venture = if purpose == "business" { 14.0 } else { 0.0 };
            22.0 + 290.0 * burden - 55.0 * settled - (income - 45_000.0) / 900.0
                + venture
                + 50.0 * draws.normal()
        };
        let (strict, usual) = WRITTEN_OFF_AFTER_DAYS;
        let limit = if STRICT_DISTRICTS.contains(&district) {
            strict
        } else {
            usual
        };
        Self {
            id: format!("A{}", 100_000 + number),
            opened_day: draws.whole(0, 3 * 365 - 1),
            age,
            woman,
            born_abroad,
            district,
            income,
            employed_months,
            loan_amount,
            purpose,
            existing_debts,
            repaid: days_late <= limit,
        }
    }
}
