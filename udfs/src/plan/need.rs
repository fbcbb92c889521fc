//! When an expression needs a pass: the rows for which evaluating it, lazily, comes to a call.
//!
//! ```text
//! need(call)                         = true
//! need(a AND b), call in b alone     = a IS NOT FALSE      (in whichever order they are written)
//! need(a OR b), call in b alone      = a IS NOT TRUE
//! need(CASE WHEN a THEN b ELSE c)    = CASE WHEN a THEN need(b) ELSE need(c), or true if the call is in a
//! need(f(a, b))                      = need(a) OR need(b)
//! ```
//!
//! In the rows left out the pass is NULL, and so is what is made from it; there the other side of AND or OR decides, or
//! another branch of CASE is taken, so that the value is the same.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr};
use datafusion::logical_expr::{Case, Expr, Operator, lit};

/// In which rows a pass is needed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Need {
    Never,
    /// Where a condition is true; it is never NULL.
    When(Expr),
    Always,
}

impl Need {
    /// The rows of either.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Never, need) | (need, Self::Never) => need,
            (Self::When(a), Self::When(b)) if a == b => Self::When(a),
            (Self::When(a), Self::When(b)) => Self::When(a.or(b)),
        }
    }

    /// Those of the rows where a condition is true, too; a volatile condition would be another each time.
    fn and(self, condition: Expr) -> Self {
        match self {
            need if need == Self::Never || condition.is_volatile() => need,
            Self::When(own) => Self::When(condition.and(own)),
            _ => Self::When(condition),
        }
    }

    fn into_condition(self) -> Expr {
        match self {
            Self::Never => lit(false),
            Self::When(condition) => condition,
            Self::Always => lit(true),
        }
    }
}

/// When an expression needs a pass; `call` says so of an expression that is a call itself.
pub(super) fn need(expr: &Expr, call: &dyn Fn(&Expr) -> Option<Need>) -> Need {
    if let Some(need) = call(expr) {
        return need;
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let undecided = |other: &Expr| match op {
                Operator::And => Expr::IsNotFalse(Box::new(other.clone())),
                _ => Expr::IsNotTrue(Box::new(other.clone())),
            };
            match (need(left, call), need(right, call)) {
                (need, Need::Never) => need.and(undecided(right)),
                (Need::Never, need) => need.and(undecided(left)),
                (left, right) => left.or(right),
            }
        }
        Expr::Case(case) => need_of_case(case, call),
        Expr::AggregateFunction(AggregateFunction { params, .. }) => {
            let sorts = params.order_by.iter().map(|sort| &sort.expr);
            let values = params.args.iter().chain(sorts).fold(Need::Never, |all, arg| all.or(need(arg, call)));
            match &params.filter {
                Some(filter) => values.and(Expr::IsTrue(filter.clone())).or(need(filter, call)),
                None => values,
            }
        }
        other => {
            let mut all = Need::Never;
            let visited = other.apply_children(|child| {
                all = std::mem::replace(&mut all, Need::Never).or(need(child, call));
                Ok(TreeNodeRecursion::Continue)
            });
            debug_assert!(visited.is_ok());
            all
        }
    }
}

/// A branch needs the pass where it is taken. From the first condition on that needs it itself, all rows left do.
fn need_of_case(case: &Case, call: &dyn Fn(&Expr) -> Option<Need>) -> Need {
    if case.expr.as_deref().is_some_and(|base| need(base, call) != Need::Never) {
        return Need::Always;
    }
    let mut branches = Vec::new();
    let mut otherwise = case.else_expr.as_deref().map_or(Need::Never, |e| need(e, call));
    for (when, then) in &case.when_then_expr {
        if need(when, call) != Need::Never {
            otherwise = Need::Always;
            break;
        }
        branches.push((when.as_ref(), need(then, call)));
    }
    while branches.last().is_some_and(|(_, need)| *need == otherwise) {
        branches.pop();
    }
    let mut conditions = case.expr.as_deref().into_iter().chain(branches.iter().map(|(when, _)| *when));
    if branches.is_empty() || conditions.any(|e| e.is_volatile()) {
        return if branches.is_empty() { otherwise } else { Need::Always };
    }
    Need::When(taken(case.expr.as_deref(), branches, otherwise))
}

/// When a branch that needs the pass is taken.
fn taken(base: Option<&Expr>, branches: Vec<(&Expr, Need)>, otherwise: Need) -> Expr {
    let all = |wanted: Need| base.is_none() && branches.iter().all(|(_, need)| *need == wanted);
    let whens = branches.iter().map(|(when, _)| Box::new((*when).clone()));
    let conditions = match &otherwise {
        Need::Never if all(Need::Always) => whens.map(Expr::IsTrue).reduce(Expr::or),
        Need::Always if all(Need::Never) => whens.map(Expr::IsNotTrue).reduce(Expr::and),
        _ => None,
    };
    conditions.unwrap_or_else(|| {
        let branches =
            branches.into_iter().map(|(when, need)| (Box::new(when.clone()), Box::new(need.into_condition())));
        let otherwise = Some(Box::new(otherwise.into_condition()));
        Expr::Case(Case::new(base.cloned().map(Box::new), branches.collect(), otherwise))
    })
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, when};
    use rstest::rstest;

    use super::*;

    /// `f` stands for a call.
    fn needed(expr: &Expr) -> String {
        match need(expr, &|e| (*e == col("f")).then_some(Need::Always)) {
            Need::Never => "never".to_owned(),
            Need::When(condition) => condition.to_string(),
            Need::Always => "always".to_owned(),
        }
    }

    fn case(when_: Expr, then: Expr, else_: Expr) -> Expr {
        when(when_, then).otherwise(else_).unwrap()
    }

    #[rstest]
    #[case(col("a"), "never")]
    #[case(col("f").gt(lit(1)), "always")]
    #[case(col("a").and(col("f")), "a IS NOT FALSE")]
    #[case(col("f").and(col("a")), "a IS NOT FALSE")]
    #[case(col("a").or(col("f")), "a IS NOT TRUE")]
    #[case(col("f").or(col("f")), "always")]
    #[case(col("a").and(col("b").or(col("f"))), "a IS NOT FALSE AND b IS NOT TRUE")]
    #[case(case(col("a"), col("f"), lit(0)), "a IS TRUE")]
    #[case(case(col("a"), col("f"), col("f")), "always")]
    #[case(case(col("a"), lit(0), col("f")), "a IS NOT TRUE")]
    #[case(case(col("f"), lit(0), lit(1)), "always")]
    #[case(case(col("a"), col("f"), lit(0)) + col("f"), "always")]
    fn a_pass_is_needed_where_it_is_reached(#[case] expr: Expr, #[case] expected: &str) {
        assert_eq!(needed(&expr), expected);
    }

    #[test]
    fn several_branches_are_followed_in_turn() {
        let case = |branches: [Expr; 3]| {
            let [a, b, c] = branches;
            when(col("a"), a).when(col("b"), b).otherwise(c).unwrap()
        };
        assert_eq!(needed(&case([col("f"), col("f"), lit(0)])), "a IS TRUE OR b IS TRUE");
        assert_eq!(needed(&case([lit(0), lit(0), col("f")])), "a IS NOT TRUE AND b IS NOT TRUE");
        assert_eq!(needed(&case([col("f"), lit(0), lit(0)])), "a IS TRUE");
        let mixed = needed(&case([lit(0), col("f"), lit(0)]));
        assert_eq!(mixed, "CASE WHEN a THEN Boolean(false) WHEN b THEN Boolean(true) ELSE Boolean(false) END");
        let decided = when(col("a"), lit(0)).when(col("f"), lit(1)).otherwise(lit(2)).unwrap();
        assert_eq!(needed(&decided), "a IS NOT TRUE");
        let of_base =
            Expr::Case(Case::new(Some(Box::new(col("x"))), vec![(Box::new(lit(1)), Box::new(col("f")))], None));
        assert_eq!(needed(&of_base), "CASE x WHEN Int32(1) THEN Boolean(true) ELSE Boolean(false) END");
    }
}
