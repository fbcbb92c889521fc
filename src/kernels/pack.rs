//! Weights in the order in which the register-blocked product reads them.

use rayon::prelude::*;

use super::tile::Element;

/// The order of a tap's weight matrix in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Rows are reduced over, columns are outputs.
    ReduceRows,
    /// Columns are reduced over, rows are outputs.
    ReduceColumns,
}

/// Weights as [panel][tap][reduced channel][`width` outputs], or for bf16 [panel][tap][pair of channels][`width`
/// outputs][2]: a panel is as wide as a register tile, its tail filled with zeros.
#[derive(Debug)]
pub(super) struct Packed<T = f32> {
    values: Vec<T>,
    pub(super) width: usize,
    pub(super) taps: usize,
    pub(super) reduced: usize,
    pub(super) outputs: usize,
}

impl<T: Element> Packed<T> {
    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// A panel's weights.
    pub(super) fn panel(&self, panel: usize) -> &[T] {
        let len = self.taps * self.reduced * self.width;
        &self.values[panel * len..(panel + 1) * len]
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self.values.as_slice())
    }

    /// Groups the channels as the element takes them, and rounds.
    fn of(packed: Packed<f32>) -> Self {
        let Packed { values, width, taps, reduced, outputs } = packed;
        assert!(reduced.is_multiple_of(T::GROUP), "{reduced} channels cannot be grouped by {}", T::GROUP);
        if T::GROUP == 1 {
            return Packed { values: values.into_iter().map(T::from_f32).collect(), width, taps, reduced, outputs };
        }
        let grouped = |(i, _): (usize, &f32)| {
            let (group, within) = (i / (T::GROUP * width), i % (T::GROUP * width));
            let (output, channel) = (within / T::GROUP, within % T::GROUP);
            T::from_f32(values[(group * T::GROUP + channel) * width + output])
        };
        Self { values: values.iter().enumerate().map(grouped).collect(), width, taps, reduced, outputs }
    }
}

/// Packs the matrices (rows, columns) of the chosen `taps`, each output scaled where `scale` is given.
pub(super) fn pack<T: Element>(
    weights: &[f32],
    (rows, columns): (usize, usize),
    order: Order,
    taps: &[usize],
    width: usize,
    scale: Option<&[f32]>,
) -> Packed<T> {
    let (reduced, outputs) = match order {
        Order::ReduceRows => (rows, columns),
        Order::ReduceColumns => (columns, rows),
    };
    let panels = outputs.div_ceil(width);
    let mut values = vec![0.0; panels * taps.len() * reduced * width];
    if reduced > 0 {
        values.par_chunks_mut(reduced * width).enumerate().for_each(|(chunk, to)| {
            let (panel, tap) = (chunk / taps.len(), taps[chunk % taps.len()]);
            let from = &weights[tap * rows * columns..(tap + 1) * rows * columns];
            let first = panel * width;
            let used = width.min(outputs - first);
            match order {
                Order::ReduceRows => {
                    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(columns)) {
                        to[..used].copy_from_slice(&from[first..first + used]);
                    }
                }
                Order::ReduceColumns => transpose(&from[first * columns..(first + used) * columns], columns, to, width),
            }
            if let Some(scale) = scale {
                for to in to.chunks_exact_mut(width) {
                    to.iter_mut().zip(&scale[first..first + used]).for_each(|(v, s)| *v *= s);
                }
            }
        });
    }
    Packed::of(Packed { values, width, taps: taps.len(), reduced, outputs })
}

/// Writes row i of `from` into column i of `to`, in blocks of sixteen so that both stay in cache.
fn transpose(from: &[f32], columns: usize, to: &mut [f32], width: usize) {
    for start in (0..columns).step_by(16) {
        let end = (start + 16).min(columns);
        for (i, row) in from.chunks_exact(columns).enumerate() {
            for (c, value) in row[start..end].iter().enumerate() {
                to[(start + c) * width + i] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_give_panels_padded_with_zeros() {
        let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // one tap, 2 × 3
        let rows = pack::<f32>(&weights, (2, 3), Order::ReduceRows, &[0], 2, None);
        assert_eq!(rows.values, [1.0, 2.0, 4.0, 5.0, 3.0, 0.0, 6.0, 0.0]);
        let columns = pack::<f32>(&weights, (2, 3), Order::ReduceColumns, &[0], 2, Some(&[1.0, 10.0]));
        assert_eq!(columns.values, [1.0, 40.0, 2.0, 50.0, 3.0, 60.0]);
        // Two channels side by side an output, 2 outputs a panel.
        let pairs = pack::<half::bf16>(&weights, (2, 3), Order::ReduceRows, &[0], 2, None);
        let pairs: Vec<f32> = pairs.values.iter().map(|v| v.to_f32()).collect();
        assert_eq!(pairs, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 0.0, 0.0]);
    }
}
