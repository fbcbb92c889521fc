//! Numbers that can be checked by hand, and the edges.

use super::*;
use crate::config::Prior;
use crate::objective::sample;

fn fit(rows: &[f32], channels: usize, components: Option<usize>) -> Result<Whitening> {
    // Blocks of unequal length.
    let (first, rest) = rows.split_at(rows.len() / channels / 3 * channels);
    Whitening::fit(channels, components, || [first, rest].map(|block| Ok(block.to_vec())).into_iter())
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// Four points around (10, 20): ±(3, 3) and ±(1, −1). The scatter is [[20, 16], [16, 20]], with the directions (1, 1)/√2
/// of sum 36 and (1, −1)/√2 of 4; by three places less one, the deviations are √12 and √(4/3).
#[test]
fn two_channels_by_hand() {
    let rows = [13.0, 23.0, 7.0, 17.0, 11.0, 19.0, 9.0, 21.0];
    let whitening = fit(&rows, 2, None).unwrap();
    assert_eq!((whitening.channels(), whitening.components()), (2, 2));
    assert!(near(whitening.mean(), &[10.0, 20.0]));
    let h = 0.5_f32.sqrt();
    assert!(near(&whitening.projection().iter().map(|p| p.abs()).collect::<Vec<_>>(), &[h; 4]));
    assert!(near(whitening.deviation(), &[12_f32.sqrt(), (4.0_f32 / 3.0).sqrt()]));
    let whitened = whitening.apply(&rows);
    // 3√2/√12 = √1.5, and √2/√(4/3) = √1.5.
    let w = 1.5_f32.sqrt();
    assert!(near(&whitened.iter().map(|v| v.abs()).collect::<Vec<_>>(), &[w, 0.0, w, 0.0, 0.0, w, 0.0, w]));
    assert!(whitened[0] > 0.0, "the largest entry of a direction is positive");
    assert!(near(&whitening.undo(&whitened), &rows));
}

/// Of correlated channels, whitened values have mean 0, variance 1 and no correlation.
#[test]
fn whitened_values_are_uncorrelated() {
    let noise = sample(Prior::default(), 500, 3, 1);
    let mixed = |n: &[f32]| [5.0 + 3.0 * n[0], n[0] - 0.1 * n[1], 4.0 + n[2] + n[1], n[0] + n[2]];
    let rows: Vec<f32> = noise.chunks_exact(3).flat_map(mixed).collect();
    let whitening = fit(&rows, 4, None).unwrap();
    assert_eq!(whitening.components(), 3, "four channels of three numbers vary in three directions");
    let whitened = whitening.apply(&rows);
    let column = |j: usize| whitened.iter().skip(j).step_by(3).map(|v| f64::from(*v)).collect::<Vec<_>>();
    for i in 0..3 {
        assert!(column(i).iter().sum::<f64>().abs() / 500.0 < 1e-3);
        for j in 0..3 {
            let product = column(i).iter().zip(column(j)).map(|(a, b)| a * b).sum::<f64>() / 499.0;
            assert!((product - f64::from(u8::from(i == j))).abs() < 1e-3, "{i} {j}: {product}");
        }
    }
    let back = whitening.undo(&whitened);
    assert!(rows.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_row_is_whitened_alike_whatever_stands_beside_it() {
    let rows = sample(Prior::default(), 37, 5, 2);
    let whitening = fit(&rows, 5, Some(3)).unwrap();
    let together = whitening.apply(&rows);
    for (row, expected) in rows.chunks_exact(5).zip(together.chunks_exact(3)) {
        assert_eq!(whitening.apply(row), expected);
    }
    assert_eq!(fit(&rows, 5, Some(3)).unwrap(), whitening);
}

#[test]
fn constant_and_faint_channels_have_no_part() {
    let rows: Vec<f32> = (0..20).flat_map(|i| [0.1, (i % 7) as f32, -3.5, 1e-9 * (i % 3) as f32]).collect();
    let whitening = fit(&rows, 4, None).unwrap();
    assert_eq!(whitening.components(), 1);
    assert!(near(whitening.projection(), &[0.0, 1.0, 0.0, 0.0]));
    let other = whitening.apply(&[100.0, 3.0, 100.0, 0.0]);
    assert_eq!(other, whitening.apply(&[0.1, 3.0, -3.5, 0.0]));
    assert_eq!(named(&[true, false, true]), "2 of 3 channels of the features (0, 2, counted from 0)");
    assert!(named(&[true; 20]).contains("20 of 20") && named(&[true; 20]).contains("7, ..."));
}

#[test]
fn too_little_that_varies_is_refused() {
    let error = fit(&[1.0, 2.0, 1.0, 2.0], 2, None).unwrap_err().to_string();
    assert_eq!(error, "none of the 2 channels of the features varies among the training rows, expected at least one");
    let rows: Vec<f32> = (0..9).flat_map(|i| [i as f32, 2.0 * i as f32, (i % 2) as f32]).collect();
    let error = fit(&rows, 3, Some(3)).unwrap_err().to_string();
    assert_eq!(error, "components is 3, and the training rows vary in 2 directions, expected at most 2");
    assert_eq!(fit(&rows, 3, Some(2)).unwrap().components(), 2);
    assert!(fit(&[1e38, -1e38], 1, None).is_ok(), "sums of squares are of 64 bits");
}

/// One channel, as of a table with one column.
#[test]
fn one_channel_by_hand() {
    let whitening = fit(&[1.0, 3.0, 5.0], 1, None).unwrap();
    assert!(near(&whitening.apply(&[1.0, 3.0, 5.0, 7.0]), &[-1.0, 0.0, 1.0, 2.0]));
    assert!(near(&whitening.undo(&[0.5]), &[4.0]));
}

/// More rows than a block, more channels than all eigenvectors are found of.
#[test]
fn four_thousand_channels() {
    let hidden = sample(Prior::default(), 40, 8, 3);
    let rows: Vec<f32> =
        hidden.chunks_exact(8).flat_map(|h| (0..4096).map(|c| h[c % 8] * (1 + c / 512) as f32)).collect();
    let whitening = fit(&rows, 4096, None).unwrap();
    assert_eq!((whitening.channels(), whitening.components()), (4096, 8));
    let whitened = whitening.apply(&rows);
    let square: f32 = whitened.iter().map(|v| v * v).sum::<f32>() / (39.0 * 8.0);
    assert!((square - 1.0).abs() < 1e-3, "{square}");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let error = |m: &[f32], p: &[f32], d: &[f32]| {
        Whitening::try_new(m.to_vec(), p.to_vec(), d.to_vec()).unwrap_err().to_string()
    };
    assert!(error(&[0.0], &[1.0, 1.0], &[1.0]).contains("2 values in its projection"));
    assert!(error(&[], &[], &[]).contains("a whitening of 0 channels"));
    for deviation in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(error(&[0.0], &[1.0], &[deviation]).contains("expected numbers above 0"));
    }
    assert!(error(&[0.0], &[1.0], &[1e-39]).contains("does not fit into 32 bits"));
    assert!(error(&[f32::NAN], &[1.0], &[1.0]).contains("does not fit into 32 bits"));
}
