//! Random expressions over the words, as GLSL and in Rust.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Expression {
    Number(u32),
    Index,
    /// The word at an index; the last one if there is none.
    Word(Box<Expression>),
    Not(Box<Expression>),
    Of(Operator, Box<Expression>, Box<Expression>),
    /// The third if the first is less than the second, and else the first.
    IfLess(Box<Expression>, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    /// By a number that is not 0.
    Divide,
    And,
    Or,
    Xor,
    Least,
    Most,
    /// By less than 32.
    Left,
    Right,
}

impl Arbitrary for Expression {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
        use Operator::{Add, And, Divide, Least, Left, Most, Multiply, Or, Right, Subtract, Xor};
        let number = prop_oneof![0..8u32, any::<u32>()].prop_map(Self::Number);
        let own = Just(Self::Word(Box::new(Self::Index)));
        let leaf = prop_oneof![number, Just(Self::Index), own];
        let operator =
            prop::sample::select(vec![Add, Subtract, Multiply, Divide, And, Or, Xor, Least, Most, Left, Right]);
        let tree = leaf.prop_recursive(4, 16, 3, move |inner| {
            let boxed = inner.prop_map(Box::new);
            prop_oneof![
                2 => boxed.clone().prop_map(Self::Word),
                1 => boxed.clone().prop_map(Self::Not),
                5 => (operator.clone(), boxed.clone(), boxed.clone()).prop_map(|(of, a, b)| Self::Of(of, a, b)),
                1 => (boxed.clone(), boxed.clone(), boxed).prop_map(|(a, b, c)| Self::IfLess(a, b, c)),
            ]
        });
        tree.boxed()
    }
}

impl Expression {
    pub(super) fn glsl(&self) -> String {
        match self {
            Self::Number(number) => format!("{number}u"),
            Self::Index => "index".into(),
            // The compiler refuses a constant index past the end; this is not constant to it.
            Self::Word(at) => format!("current[{} + 0u * index]", at.glsl()),
            Self::Not(of) => format!("(~{})", of.glsl()),
            Self::IfLess(a, b, c) => {
                let (a, b, c) = (a.glsl(), b.glsl(), c.glsl());
                format!("({a} < {b} ? {c} : {a})")
            }
            Self::Of(operator, a, b) => {
                let (a, b) = (a.glsl(), b.glsl());
                match operator {
                    Operator::Add => format!("({a} + {b})"),
                    Operator::Subtract => format!("({a} - {b})"),
                    Operator::Multiply => format!("({a} * {b})"),
                    Operator::Divide => format!("({a} / max({b}, 1u))"),
                    Operator::And => format!("({a} & {b})"),
                    Operator::Or => format!("({a} | {b})"),
                    Operator::Xor => format!("({a} ^ {b})"),
                    Operator::Least => format!("min({a}, {b})"),
                    Operator::Most => format!("max({a}, {b})"),
                    Operator::Left => format!("({a} << ({b} & 31u))"),
                    Operator::Right => format!("({a} >> ({b} & 31u))"),
                }
            }
        }
    }

    pub(super) fn value(&self, words: &[u32], index: u32) -> u32 {
        match self {
            Self::Number(number) => *number,
            Self::Index => index,
            Self::Word(at) => words[(at.value(words, index) as usize).min(words.len() - 1)],
            Self::Not(of) => !of.value(words, index),
            Self::IfLess(a, b, c) => {
                let a = a.value(words, index);
                if a < b.value(words, index) { c.value(words, index) } else { a }
            }
            Self::Of(operator, a, b) => {
                let (a, b) = (a.value(words, index), b.value(words, index));
                match operator {
                    Operator::Add => a.wrapping_add(b),
                    Operator::Subtract => a.wrapping_sub(b),
                    Operator::Multiply => a.wrapping_mul(b),
                    Operator::Divide => a / b.max(1),
                    Operator::And => a & b,
                    Operator::Or => a | b,
                    Operator::Xor => a ^ b,
                    Operator::Least => a.min(b),
                    Operator::Most => a.max(b),
                    Operator::Left => a << (b & 31),
                    Operator::Right => a >> (b & 31),
                }
            }
        }
    }
}
