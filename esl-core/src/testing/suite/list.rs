/// Writes one `#[test]` for each promise that a storage makes.
///
/// All that an adapter writes is a [`Harness`](crate::testing::Harness):
///
/// ```ignore
/// // tests/conformance.rs
/// struct OnDisk { /* a temporary directory */ }
///
/// #[async_trait]
/// impl Harness for OnDisk { /* new, engines, open, reopen_after_kill */ }
///
/// esl_core::testing::storage_suite!(OnDisk);
/// // → seqs_have_no_gaps, settling_twice_changes_nothing, …
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! storage_suite {
    (@list $what:ident $arguments:tt) => {
        $crate::storage_suite! { @$what $arguments
            commit:
                seqs_have_no_gaps;
        }
    };
    (@tests [$harness:ty] $($module:ident: $($case:ident),+ $(,)?;)+) => {
        $($(
            #[test]
            fn $case() {
                $crate::testing::suite::run::<$harness>($crate::testing::suite::cases::$case);
            }
        )+)+
    };
    (@cases [] $($module:ident: $($case:ident),+ $(,)?;)+) => {
        /// Every case under its name. A function that the list forgets is never used: a warning.
        pub mod cases {
            use super::{Case, World};
            $($(
                #[doc(hidden)]
                #[must_use]
                pub fn $case(world: World) -> Case {
                    Box::pin(super::$module::$case(world))
                }
            )+)+
        }
    };
    ($harness:ty) => {
        $crate::storage_suite! { @list tests [$harness] }
    };
}
