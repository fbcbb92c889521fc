//! The stored axes of an image: which of them are height, width and channels, and where each value stands.

use super::meaning::Meaning;
use super::{AxisOrder, ImageShape};
use crate::error::{Error, Result};

/// The most channels that a shape is taken to have where nothing names its axes.
const FEW: usize = 4;

/// The stored axes that are height, width and channels. An image may have no axis of channels, and a vector of features
/// has no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axes {
    height: Option<usize>,
    width: Option<usize>,
    channels: Option<usize>,
    source: Source,
}

/// The source of an order of axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// None: height, width, channels.
    Assumed,
    /// A tensor's permutation, which says nothing about names.
    Permutation,
    /// The names of the axes, the caller, or a format that has one order only.
    Stated,
}

impl Axes {
    /// Reads the axes' names, which the specification gives to the stored order, where they are those of an image;
    /// otherwise the permutation's order, axis `permutation[i]` being the i-th of (H, W, C); otherwise that order.
    ///
    /// pyarrow 26 agrees where the permutation is its own inverse. On a cycle of three its `to_tensor` and
    /// `from_numpy_ndarray` take the inverse; here the specification decides, and names decide before it.
    pub(super) fn try_new(rank: usize, names: &[Option<String>], permutation: Option<&[usize]>) -> Result<Self> {
        if !(1..=3).contains(&rank) {
            return Err(not_an_image(rank));
        }
        let stored: Vec<usize> = (0..rank).collect();
        let order = permutation.unwrap_or(&stored);
        // pyarrow writes the permutation of an array in its own order, too.
        let source = if order == stored { Source::Assumed } else { Source::Permutation };
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        let permuted = match (sorted == stored, order) {
            (true, &[channels]) => Self { height: None, width: None, channels: Some(channels), source },
            (true, &[height, width]) => Self { height: Some(height), width: Some(width), channels: None, source },
            (true, &[height, width, channels]) => {
                Self { height: Some(height), width: Some(width), channels: Some(channels), source }
            }
            _ => {
                return Err(Error::Type(format!(
                    "the permutation {order:?} of a tensor does not order {rank} dimensions"
                )));
            }
        };
        Ok(Self::named(rank, names).unwrap_or(permuted))
    }

    fn named(rank: usize, names: &[Option<String>]) -> Option<Self> {
        if names.len() != rank || rank == 1 {
            return None;
        }
        let find = |wanted: [&str; 3]| {
            let is_wanted = |name: &str| wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
            names.iter().position(|name| name.as_deref().is_some_and(is_wanted))
        };
        let channels = if rank == 3 { Some(find(["C", "channel", "channels"])?) } else { None };
        let height = Some(find(["H", "height", "y"])?);
        let width = Some(find(["W", "width", "x"])?);
        Some(Self { height, width, channels, source: Source::Stated })
    }

    /// The order that holds where nothing names one.
    pub(super) fn assumed() -> Self {
        Self { source: Source::Assumed, ..Self::stated(AxisOrder::Hwc, 3) }
    }

    /// An order that is known of `rank` axes; two of them are height and width in any order, and one is of channels.
    pub(super) fn stated(order: AxisOrder, rank: usize) -> Self {
        let source = Source::Stated;
        match (rank, order) {
            (1, _) => Self { height: None, width: None, channels: Some(0), source },
            (2, _) => Self { height: Some(0), width: Some(1), channels: None, source },
            (_, AxisOrder::Hwc) => Self { height: Some(0), width: Some(1), channels: Some(2), source },
            (_, AxisOrder::Chw) => Self { height: Some(1), width: Some(2), channels: Some(0), source },
        }
    }

    /// The same axes in the order that a caller states.
    ///
    /// # Errors
    /// [`Error::Type`] if the type names another order.
    pub(super) fn in_order(self, order: AxisOrder) -> Result<Self> {
        let stated = Self::stated(order, self.rank());
        if self.source == Source::Assumed || (Self { source: Source::Stated, ..self }) == stated {
            return Ok(stated);
        }
        Err(Error::Type(format!(
            "the type of the images has the order {} of the axes, got the order {order}: leave it out",
            self.letters()
        )))
    }

    /// The same axes in an order that holds where the type names none.
    pub(super) fn in_default_order(self, order: AxisOrder) -> Self {
        if self.source == Source::Assumed { Self::stated(order, self.rank()) } else { self }
    }

    /// These axes for a row of `rank` dimensions: a grey image may have no axis of channels.
    ///
    /// # Errors
    /// [`Error::Data`] if no image has so many.
    pub(super) fn of_rank(self, rank: usize) -> Result<Self> {
        match rank {
            _ if rank == self.rank() => Ok(self),
            2 if self.source != Source::Permutation && self.height < self.width => Ok(Self::stated(AxisOrder::Hwc, 2)),
            _ => Err(Error::Data(format!("{}", not_an_image(rank)))),
        }
    }

    /// Whether the axes stand in the same order, whatever says so.
    pub(super) fn has_order_of(self, other: Self) -> bool {
        let order = |axes: Self| (axes.height, axes.width, axes.channels);
        order(self) == order(other)
    }

    /// The number of stored axes.
    pub(super) fn rank(self) -> usize {
        [self.height, self.width, self.channels].into_iter().flatten().count()
    }

    /// The stored order, such as `CHW`.
    fn letters(self) -> String {
        let axes = [(self.height, 'H'), (self.width, 'W'), (self.channels, 'C')];
        let mut axes: Vec<_> = axes.into_iter().filter(|(axis, _)| axis.is_some()).collect();
        axes.sort_unstable();
        axes.into_iter().map(|(_, letter)| letter).collect()
    }

    /// The sides of (H, W, C) among the sizes of the stored axes; of an axis that is not stored, it is 1.
    pub(super) fn sides(self, sizes: &[Option<usize>]) -> [Option<usize>; 3] {
        let size = |axis: usize| sizes.get(axis).copied().flatten();
        [self.height, self.width, self.channels].map(|axis| axis.map_or(Some(1), size))
    }

    /// Refuses an order that nothing names, if the sides (H, W, C) that it gives are hardly those of an image and
    /// those of another order would be.
    ///
    /// # Errors
    /// A message that says how to name the order.
    pub(super) fn check(self, sides: [Option<usize>; 3], meaning: Meaning) -> Result<(), String> {
        if meaning == Meaning::Features {
            return self.check_features(sides);
        }
        let few = sides.map(|side| side.is_some_and(|side| side <= FEW));
        let many = sides.map(|side| side.is_some_and(|side| side > FEW));
        let shape = || side_names(sides);
        match self.source {
            // A few channels of any size, or more of a square one.
            Source::Assumed if many[1] && many[2] && (few[0] || (sides[1] == sides[2] && sides[0] < sides[1])) => {
                Err(format!(
                    "got an image of the shape {}, expected the order of the axes height, width, channels (HWC), and \
                 this looks like channels, height, width (CHW): name the order, in wae_train as layout => 'CHW', \
                 elsewhere as image_decode(image, height, width, channels, 'CHW'), with 'HWC' if it is that",
                    shape()
                ))
            }
            Source::Permutation if few[0] != few[1] && many[2] => Err(format!(
                "the permutation of a tensor makes an image of height, width, channels {}, expected a few channels: \
                 name the order of the axes with dim_names",
                shape()
            )),
            _ => Ok(()),
        }
    }

    /// The same for features, which have any number of channels: the order is refused if another would make a map that
    /// is more nearly square.
    fn check_features(self, sides: [Option<usize>; 3]) -> Result<(), String> {
        let [Some(height), Some(width), Some(channels)] = sides else { return Ok(()) };
        let is_squarer = height.max(width).saturating_mul(width.min(channels))
            > width.max(channels).saturating_mul(height.min(width));
        if self.source != Source::Assumed || self.rank() < 3 || !is_squarer {
            return Ok(());
        }
        Err(format!(
            "got features of the shape {}, expected the order of the axes height, width, channels (HWC), and this looks \
             like channels, height, width (CHW): name the order with dim_names, or in wae_train as layout => 'CHW', with \
             'HWC' if it is that",
            side_names(sides)
        ))
    }

    /// The layout of an image whose stored axes have these sizes.
    ///
    /// # Errors
    /// [`Error::Data`] if an axis is zero or missing, or the product does not fit.
    pub(super) fn layout(self, sizes: &[usize]) -> Result<Layout> {
        let bad = || Error::Data(format!("a tensor of shape {sizes:?} is no image"));
        // One step along a stored axis skips the sizes of all axes inside it.
        let mut strides = vec![1_usize; sizes.len()];
        let mut product = 1_usize;
        for (stride, size) in strides.iter_mut().zip(sizes).rev() {
            *stride = product;
            product = product.checked_mul(*size).filter(|product| *product > 0).ok_or_else(bad)?;
        }
        let axis = |axis: usize| Some((*sizes.get(axis)?, *strides.get(axis)?));
        let find = |stored: Option<usize>| stored.map_or(Some((1, 1)), axis).ok_or_else(bad);
        let (height, h) = find(self.height)?;
        let (width, w) = find(self.width)?;
        let (channels, c) = find(self.channels)?;
        Ok(Layout { shape: ImageShape::new(height, width, channels), strides: [h, w, c] })
    }
}

/// Sides as a message shows them.
pub(super) fn side_names(sides: [Option<usize>; 3]) -> String {
    format!("[{}]", sides.map(|side| side.map_or("any".to_owned(), |side| side.to_string())).join(", "))
}

/// The error of a tensor that is no image for its number of axes.
pub(super) fn not_an_image(rank: usize) -> Error {
    Error::Type(format!("a tensor of {rank} dimensions is no image, expected [H, W] or [H, W, C]"))
}

/// The place of the value (h, w, c) of an image in a flat list: its inner product with `strides`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: ImageShape,
    pub(super) strides: [usize; 3],
}

impl Layout {
    /// The same layout, in which one channel lies next to itself: layouts that place all values alike are equal.
    pub(super) fn canonical(self) -> Self {
        let [height, width, channels] = self.strides;
        Self { strides: [height, width, if self.shape.channels() == 1 { 1 } else { channels }], ..self }
    }

    /// Values in (H, W, C) order.
    pub(super) fn row_major(shape: ImageShape) -> Self {
        Self::ordered(shape, AxisOrder::Hwc)
    }

    /// Values in an order; the shape is (H, W, C) in any.
    pub(super) fn ordered(shape: ImageShape, order: AxisOrder) -> Self {
        let strides = match order {
            AxisOrder::Hwc => [shape.width().saturating_mul(shape.channels()), shape.channels(), 1],
            AxisOrder::Chw => [shape.width(), 1, shape.height().saturating_mul(shape.width())],
        };
        Self { shape, strides }
    }

    /// (H, W, C), whatever the stored order.
    pub(super) fn shape(self) -> ImageShape {
        self.shape
    }

    /// Brings values into (H, W, C) order. Places beyond `values` are left out.
    pub(super) fn arrange<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        if self == Self::row_major(self.shape) || values.len() != self.shape.len() {
            return values;
        }
        let [h, w, c] = self.strides;
        let height = self.shape.height();
        let width = self.shape.width();
        let channels = self.shape.channels();
        (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |k| y * h + x * w + k * c)))
            .filter_map(|at| values.get(at).copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn permuted(order: [usize; 3]) -> Axes {
        Axes::try_new(3, &[], Some(&order)).unwrap()
    }

    fn named(names: [&str; 3]) -> Axes {
        Axes::try_new(3, &names.map(|name| Some(name.to_owned())), None).unwrap()
    }

    /// Feature maps have more channels than images, and are mostly square.
    #[rstest]
    #[case::torch([512, 7, 7], true)]
    #[case::torch_pooled([512, 1, 1], true)]
    #[case::torch_wide([112, 14, 16], true)]
    #[case::numpy([7, 7, 512], false)]
    #[case::numpy_wide([14, 16, 112], false)]
    #[case::vector([1, 1, 768], false)]
    #[case::few([65, 64, 2], false)]
    #[case::cube([8, 8, 8], false)]
    fn an_implausible_order_of_features_is_refused(#[case] sizes: [usize; 3], #[case] refused: bool) {
        let checked = Axes::assumed().check(sizes.map(Some), Meaning::Features);
        assert_eq!(checked.is_err(), refused, "{checked:?}");
        let stated = Axes::assumed().in_default_order(AxisOrder::Chw);
        assert_eq!(stated.check(sizes.map(Some), Meaning::Features), Ok(()));
        assert_eq!(stated.in_default_order(AxisOrder::Hwc), stated);
    }

    /// A tensor of one dimension, and one of two, has no other order.
    #[test]
    fn vectors_and_grids_have_their_axes() {
        let vector = Axes::try_new(1, &[Some("x".to_owned())], Some(&[0])).unwrap();
        assert_eq!((vector.rank(), vector.letters()), (1, "C".to_owned()));
        assert_eq!(vector.layout(&[5]).unwrap().arrange(vec![1, 2, 3, 4, 5]), [1, 2, 3, 4, 5]);
        assert_eq!(vector.in_order(AxisOrder::Chw).unwrap().layout(&[5]).unwrap().shape(), ImageShape::new(1, 1, 5));
        let grid = Axes::try_new(2, &[], None).unwrap();
        assert_eq!(grid.layout(&[100, 2]).unwrap().shape(), ImageShape::new(100, 2, 1));
        assert_eq!(grid.check([Some(100), Some(2), Some(1)], Meaning::Features), Ok(()));
    }

    #[rstest]
    #[case::torch([3, 16, 16], true)]
    #[case::torch_grey([1, 28, 28], true)]
    #[case::with_alpha([4, 5, 5], true)]
    #[case::numpy([16, 16, 3], false)]
    #[case::thin([3, 16, 4], false)]
    #[case::short([3, 4, 16], false)]
    #[case::five([5, 16, 16], true)]
    #[case::five_of_no_square([5, 16, 12], false)]
    fn an_order_is_assumed_where_it_is_plausible(#[case] sizes: [usize; 3], #[case] refused: bool) {
        let axes = Axes::assumed();
        let checked = axes.check(sizes.map(Some), Meaning::Pixels);
        assert_eq!(checked.is_err(), refused);
        for order in [AxisOrder::Hwc, AxisOrder::Chw] {
            let stated = axes.in_order(order).unwrap();
            stated.check(stated.sides(&sizes.map(Some)), Meaning::Pixels).unwrap();
        }
    }

    #[test]
    fn the_message_says_what_came_and_what_to_write() {
        let message = Axes::assumed().check([3, 16, 16].map(Some), Meaning::Pixels).unwrap_err();
        for part in ["[3, 16, 16]", "order of the axes height, width, channels", "layout => 'CHW'", "channels, 'CHW')"]
        {
            assert!(message.contains(part), "{message}");
        }
        let message = permuted([2, 0, 1]).check([3, 16, 16].map(Some), Meaning::Pixels).unwrap_err();
        assert!(message.contains("[3, 16, 16], expected a few channels: name the order of the axes with"), "{message}");
    }

    /// The order that pyarrow 26 writes of an array (N, H, W, C) that was transposed to (N, C, H, W).
    #[test]
    fn a_permutation_makes_few_channels() {
        assert!(permuted([1, 2, 0]).check([16, 3, 16].map(Some), Meaning::Pixels).is_err());
        assert!(permuted([1, 2, 0]).check([16, 16, 3].map(Some), Meaning::Pixels).is_ok());
        assert!(permuted([0, 1, 2]).check([3, 16, 16].map(Some), Meaning::Pixels).is_err(), "no permutation at all");
    }

    #[test]
    fn a_type_that_names_its_order_keeps_it() {
        let first = named(["Channel", "height", "width"]);
        assert_eq!(first.in_order(AxisOrder::Chw).unwrap(), first);
        assert_eq!(first.check([Some(3), Some(16), Some(16)], Meaning::Pixels), Ok(()));
        let error = first.in_order(AxisOrder::Hwc).unwrap_err();
        assert!(matches!(error, Error::Type(_)));
        assert_eq!(
            error.to_string(),
            "the type of the images has the order CHW of the axes, got the order HWC: leave it out"
        );
        assert!(named(["W", "H", "C"]).in_order(AxisOrder::Hwc).is_err());
        assert!(permuted([1, 2, 0]).in_order(AxisOrder::Chw).is_ok());
        assert!(permuted([1, 2, 0]).in_order(AxisOrder::Hwc).is_err());
    }

    #[test]
    fn a_stated_layout_is_that_of_its_axes() {
        let shape = ImageShape::new(2, 4, 3);
        for (order, sizes) in [(AxisOrder::Hwc, [2, 4, 3]), (AxisOrder::Chw, [3, 2, 4])] {
            assert_eq!(Axes::stated(order, 3).layout(&sizes).unwrap(), Layout::ordered(shape, order));
        }
    }

    #[test]
    fn a_row_may_have_no_channels() {
        let grey = Axes::assumed().of_rank(2).unwrap();
        assert_eq!(grey.layout(&[2, 4]).unwrap().shape(), ImageShape::new(2, 4, 1));
        let error = Axes::assumed().of_rank(4).unwrap_err();
        assert!(matches!(error, Error::Data(_)));
        assert_eq!(error.to_string(), "a tensor of 4 dimensions is no image, expected [H, W] or [H, W, C]");
    }
}
