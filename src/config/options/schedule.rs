//! The learning rate and λ over a training.

/// Epochs before `plateau` begins.
const PLATEAU_BEGIN: usize = 30;
/// Epochs that `plateau` compares a loss with.
const PLATEAU_COMPARED: usize = 20;
/// Epochs without progress that `plateau` allows.
const PLATEAU_PATIENCE: usize = 10;

/// The learning rate over the epochs, as a factor of its initial value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// ½ from 60 % of the epochs on, ⅕ from 80 % on.
    #[default]
    Step,
    /// The authors' `manual`, whose decays multiply: ½ from epoch 30 on, 1/10 from 50, 1/100 from 100.
    Manual,
    /// The authors' `manual_smooth`: geometric from the first epoch on, 1/100 in the last.
    Smooth,
    /// The authors' `plateau`, by epochs where theirs goes by steps: from epoch 30 on, divided by 1.4 whenever the loss
    /// has not been below that of the 20 epochs before it for more than 10 epochs, down to 1e-6.
    Plateau,
    /// 1 throughout.
    Constant,
}

impl Schedule {
    /// Every schedule under its name, as `schedule =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("step", Self::Step),
        ("manual", Self::Manual),
        ("smooth", Self::Smooth),
        ("plateau", Self::Plateau),
        ("constant", Self::Constant),
    ];

    /// The factor in the epoch that follows those whose losses are given, of `epochs` in all.
    pub fn factor(self, losses: &[f64], epochs: usize) -> f64 {
        let done = losses.len();
        let share = done as f64 / epochs.max(1) as f64;
        let falls =
            |steps: [(bool, f64); 3]| steps.into_iter().rev().find(|(reached, _)| *reached).map_or(1.0, |(_, f)| f);
        match self {
            Self::Step => falls([(share >= 0.6, 0.5), (share >= 0.8, 0.2), (false, 1.0)]),
            Self::Manual => falls([(done >= 30, 0.5), (done >= 50, 0.1), (done >= 100, 0.01)]),
            Self::Smooth => 0.01_f64.powf((done + 1) as f64 / epochs.max(1) as f64),
            Self::Plateau => plateau(losses),
            Self::Constant => 1.0,
        }
    }
}

fn plateau(losses: &[f64]) -> f64 {
    let mut factor = 1.0_f64;
    let mut waited = 0;
    for epoch in PLATEAU_BEGIN..losses.len() {
        let best = losses[epoch - PLATEAU_COMPARED..epoch].iter().copied().fold(f64::INFINITY, f64::min);
        waited = if losses[epoch] < best { 0 } else { waited + 1 };
        if waited > PLATEAU_PATIENCE {
            factor = (factor / 1.4).max(1e-6);
            waited = 0;
        }
    }
    factor
}

/// λ over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LambdaSchedule {
    /// The same throughout.
    #[default]
    Constant,
    /// The authors' `adaptive`: every 1,000 steps the mean of λ and the step's cost / |divergence|.
    Adaptive,
}

impl LambdaSchedule {
    /// Every schedule under its name, as `lambda_schedule =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("constant", Self::Constant), ("adaptive", Self::Adaptive)];

    /// λ after a step, from 1.
    ///
    /// # Source
    /// The authors' `wae.py`, `train`.
    pub(crate) fn next(self, lambda: f64, step: u64, cost: f64, divergence: Option<f64>) -> f64 {
        match (self, divergence) {
            // A divergence of 0 says nothing about the weight it should have.
            (Self::Adaptive, Some(d)) if step.is_multiple_of(1000) && d != 0.0 => 0.5 * lambda + 0.5 * cost / d.abs(),
            _ => lambda,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Schedule::Step, 10, &[(0, 1.0), (5, 1.0), (6, 0.5), (7, 0.5), (8, 0.2), (9, 0.2)])]
    #[case(Schedule::Manual, 200, &[(29, 1.0), (30, 0.5), (50, 0.1), (100, 0.01)])]
    #[case(Schedule::Smooth, 2, &[(0, 0.1), (1, 0.01)])]
    #[case(Schedule::Constant, 3, &[(2, 1.0)])]
    fn factors_by_hand(#[case] schedule: Schedule, #[case] epochs: usize, #[case] factors: &[(usize, f64)]) {
        for &(done, factor) in factors {
            let got = schedule.factor(&vec![1.0; done], epochs);
            assert!((got - factor).abs() < 1e-12, "{schedule:?} after {done} of {epochs}");
        }
    }

    /// A loss that stays: the eleventh epoch from the thirty-first on is one too many.
    #[test]
    fn plateau_falls_when_the_loss_stays() {
        let factor = |losses: &[f64]| Schedule::Plateau.factor(losses, 100);
        assert_eq!(factor(&[1.0; 40]), 1.0);
        assert_eq!(factor(&[1.0; 41]), 1.0 / 1.4);
        assert_eq!(factor(&[1.0; 52]), 1.0 / 1.4 / 1.4);
        let falling: Vec<f64> = (0..80).map(|i| 1.0 / f64::from(i + 1)).collect();
        assert_eq!(factor(&falling), 1.0);
    }

    #[test]
    fn adaptive_lambda_is_half_way_to_the_ratio() {
        let next = |step, divergence| LambdaSchedule::Adaptive.next(200.0, step, 10.0, divergence);
        assert_eq!(next(999, Some(0.1)), 200.0);
        assert_eq!(next(1000, Some(-0.1)), 150.0);
        assert_eq!(next(1000, Some(0.0)), 200.0);
        assert_eq!(next(1000, None), 200.0);
        assert_eq!(LambdaSchedule::Constant.next(200.0, 1000, 10.0, Some(0.1)), 200.0);
    }
}
