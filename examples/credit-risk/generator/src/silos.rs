//! The two files: how each system wrote the same people down, and what went wrong on the way.

use crate::{Applicant, BRANCH_APPLICANTS, Draws, WEB_APPLICANTS};

const BRANCH_DIRT: u32 = 1;
const WEB_DIRT: u32 = 2;

/// The counter system of the branches: commas, ISO dates, yearly income, `NA` for what is missing.
#[must_use]
pub fn branch_csv(seed: u64) -> String {
    let mut out = String::from(
        "applicant_id,opened,age,sex,origin,district,income,employment_years,\
         loan_amount,purpose,existing_debts,repaid\n",
    );
    for number in 0..BRANCH_APPLICANTS {
        let person = Applicant::draw(seed, number);
        let mut dirt = Draws::new(seed, BRANCH_DIRT, number);
        let (year, month, day) = calendar(person.opened_day);
        let mut fields = [
            person.id.clone(),
            format!("{year}-{month:02}-{day:02}"),
            person.age.to_string(),
            if person.woman { "female" } else { "male" }.to_owned(),
            if person.born_abroad {
                "abroad"
            } else {
                "domestic"
            }
            .to_owned(),
            person.district.to_owned(),
            format!("{:.0}", person.income),
            format!("{:.1}", f64::from(person.employed_months) / 12.0),
            person.loan_amount.to_string(),
            person.purpose.to_owned(),
            person.existing_debts.to_string(),
            if person.repaid { "yes" } else { "no" }.to_owned(),
        ];
        for (column, share) in [(6, 0.015), (7, 0.03), (10, 0.02), (11, 0.005)] {
            if dirt.chance(share) {
                fields[column] = "NA".to_owned();
            }
        }
        if dirt.chance(0.006) {
            fields[2] = dirt
                .pick(&[("7", 1.0), ("0", 1.0), ("214", 1.0), ("-3", 1.0)])
                .to_owned();
        }
        if dirt.chance(0.005) {
            fields[6] = format!("-{:.0}", person.income);
        }
        if dirt.chance(0.006) {
            fields[6] = dirt
                .pick(&[("42k", 1.0), ("about 30000", 1.0), ("#REF!", 1.0)])
                .to_owned();
        }
        if dirt.chance(0.002) {
            fields[1] = format!("{year}-02-31");
        }
        let mut line = fields.join(",");
        if dirt.chance(0.003) {
            line = fields[..fields.len() - 2].join(",");
        } else if dirt.chance(0.003) {
            line.push_str(",,late entry");
        }
        out.push_str(&line);
        out.push('\n');
        if dirt.chance(0.007) {
            // Somebody pressed enter twice.
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

/// The web shop: semicolons, day-first dates, monthly income, a year of birth, codes for words,
/// and some people who had been at a branch already.
#[must_use]
pub fn web_csv(seed: u64) -> String {
    let mut out = String::from(
        "customer;submitted;birth_year;gender;born_abroad;area;monthly_income;\
         months_employed;amount;reason;debt;outcome\n",
    );
    for offset in 0..WEB_APPLICANTS {
        let mut dirt = Draws::new(seed, WEB_DIRT, offset);
        let number = if dirt.chance(0.015) {
            dirt.whole(0, BRANCH_APPLICANTS - 1)
        } else {
            BRANCH_APPLICANTS + offset
        };
        let person = Applicant::draw(seed, number);
        let (year, month, day) = calendar(person.opened_day);
        let mut fields = [
            person.id.clone(),
            format!("{day:02}.{month:02}.{year}"),
            (year - person.age).to_string(),
            if person.woman { "F" } else { "M" }.to_owned(),
            if person.born_abroad { "true" } else { "false" }.to_owned(),
            person.district.to_owned(),
            format!("{:.2}", person.income / 12.0),
            person.employed_months.to_string(),
            person.loan_amount.to_string(),
            person.purpose.to_owned(),
            person.existing_debts.to_string(),
            if person.repaid {
                "repaid"
            } else {
                "written off"
            }
            .to_owned(),
        ];
        for (column, share) in [(6, 0.02), (7, 0.05), (10, 0.03), (11, 0.004)] {
            if dirt.chance(share) {
                fields[column] = dirt
                    .pick(&[("-", 1.0), ("unknown", 1.0), ("", 1.0)])
                    .to_owned();
            }
        }
        if dirt.chance(0.006) {
            fields[2] = dirt
                .pick(&[("1899", 1.0), ("2021", 1.0), ("1066", 1.0)])
                .to_owned();
        }
        if dirt.chance(0.004) {
            fields[6] = "-1.00".to_owned();
        }
        if dirt.chance(0.005) {
            fields[6] = dirt.pick(&[("EUR 3200", 1.0), ("n/a?", 1.0)]).to_owned();
        }
        if dirt.chance(0.003) {
            fields[1] = format!("31.02.{year}");
        }
        let mut line = fields.join(";");
        if dirt.chance(0.004) {
            line = line.replacen(';', "", 1);
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Year, month and day of a number of days since 2022-01-01. Nobody applies on a 29 February.
fn calendar(days: u32) -> (u32, u32, u32) {
    const MONTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let year = days / 365;
    let mut day = days % 365;
    for (month, length) in (1..).zip(MONTHS) {
        if day < length {
            return (2022 + year, month, day + 1);
        }
        day -= length;
    }
    unreachable!("a day of the year is below 365")
}
