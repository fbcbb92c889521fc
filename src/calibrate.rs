//! Conformal p-values from held-out rows.
/// Sorted scores of the held-out rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    costs: Vec<f32>,
}
impl Calibration {
    /// Number of held-out rows.
    pub fn len(&self) -> usize {
        self.costs.len()
    }
    /// none
    pub fn is_empty(&self) -> bool {
        self.costs.is_empty()
    }
    /// p = (1 + #{calibration ≥ cost}) / (1 + n), in (0, 1].
    pub fn p_value(&self, cost: f32) -> f64 {
        let _ = cost;
        unimplemented!()
    }
}
