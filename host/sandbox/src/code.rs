//! What of a component's code is looked at before it is compiled: a compiler takes memory and time far
//! out of proportion to code that nobody would write, and cannot be interrupted.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// Functions of all modules of a component. CPython as a component has 13,478, SpiderMonkey 12,584 to
/// 19,852; the compiler holds about 5 KiB for each, whatever is in it.
const MAX_FUNCTIONS: u32 = 65_536;

/// Bytes of one function. The largest that people compile are the loops of interpreters: 426,843 bytes
/// in CPython 3.14, 171,628 in SpiderMonkey. The compiler holds up to a kilobyte for each.
const MAX_FUNCTION_BYTES: usize = 512 << 10;

/// Blocks in blocks. A choice between cases is a block around each; the compiler's time grows with the
/// square.
const MAX_NESTING: usize = 10_000;

/// Holds the code of a component to what the compiler does in bounds. What is wrong with the code
/// itself is left to the compiler to say.
pub(crate) fn check(component: &[u8]) -> Result<(), String> {
    let mut functions = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let Ok(payload) = payload else {
            return Ok(());
        };
        match payload {
            Payload::CodeSectionStart { count, .. } => {
                functions = functions.saturating_add(count);
                if functions > MAX_FUNCTIONS {
                    return Err(format!(
                        "it has {functions} functions, over {MAX_FUNCTIONS}"
                    ));
                }
            }
            Payload::CodeSectionEntry(body) => check_function(&body)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), String> {
    let bytes = body.range().len();
    if bytes > MAX_FUNCTION_BYTES {
        return Err(format!(
            "it has a function of {bytes} bytes, over {MAX_FUNCTION_BYTES}"
        ));
    }
    // So short that it cannot be over: a block takes two bytes, and one where it ends.
    if bytes <= 3 * MAX_NESTING {
        return Ok(());
    }
    let Ok(mut operators) = body.get_operators_reader() else {
        return Ok(());
    };
    let mut nesting = 0_usize;
    while let Ok(operator) = operators.read() {
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => nesting += 1,
            Operator::End => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > MAX_NESTING {
            return Err(format!(
                "it has a function of blocks in blocks, over {MAX_NESTING} deep"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::configuring;

    fn of(function: &str) -> Result<(), String> {
        check(&wat::parse_str(format!("(module {function})")).expect("a module"))
    }

    #[test]
    fn what_people_compile_is_let_through() {
        assert_eq!(check(&configuring("")), Ok(()));
        assert_eq!(of(&"(func)".repeat(1000)), Ok(()));
        let nested = format!("(func {} {})", "(block ".repeat(2000), ")".repeat(2000));
        assert_eq!(of(&nested), Ok(()));
        assert_eq!(check(b"no component"), Ok(()), "others say so");
    }

    #[test]
    fn what_a_compiler_would_work_on_without_end_is_named() {
        let long = format!(
            "(func {})",
            "(drop (i64.const 0x7fffffffffff))".repeat(80_000)
        );
        let error = of(&long).expect_err("too long");
        assert!(error.starts_with("it has a function of 7"), "{error}");
        let deep = format!("(func {} {})", "(block ".repeat(20_000), ")".repeat(20_000));
        let error = of(&deep).expect_err("too deep");
        assert!(error.contains("blocks in blocks"), "{error}");
        let error = of(&"(func)".repeat(65_537)).expect_err("too many");
        assert_eq!(error, "it has 65537 functions, over 65536");
    }
}
