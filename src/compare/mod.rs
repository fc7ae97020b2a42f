//! Which synchronisation rule is best for a model, a cluster and a network: the types of the answer.

mod report;

pub use report::{
    Attained, Conditions, Criterion, Difference, Figures, Kind, Measure, Report, Row, Run, Sample, Summary, Trial,
    Tuned, Value, Winner,
};
