//! Figure 3 of Zhang et al. 2016, with a smaller model and fewer epochs than the program `staleness` has.

#[path = "../staleness/run.rs"]
mod run;

use run::{Place, accuracy};

/// Both halves of the figure: a constant rate fails, and one that is divided by the staleness does not.
#[test]
fn division_by_staleness_saves_what_a_constant_rate_loses() {
    for place in [Place::Workers, Place::Server] {
        let ends = |n, staleness| accuracy(n, staleness, place, &[48], 180, 1);
        assert!(ends(1, "const") > 0.85, "{place:?}");
        for n in [15, 30] {
            let [constant, inverse] = ["const", "inverse"].map(|staleness| ends(n, staleness));
            assert!(constant < 0.2 && inverse > 0.85, "{place:?}, n = {n}: {constant} and {inverse}");
        }
    }
}
