//! Numbers in the two text formats that monitoring systems read, and their documentation; names, kinds and help come from
//! the declarations.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::observe::counters::{self, Totals, Value};
use crate::observe::declare::{Declaration, Kind, PREFIX};
use crate::observe::gauges::{self, Sample};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client prefers, by its `Accept`; what it did not ask for is what every one takes.
    pub fn accepted(accept: &str) -> Self {
        let mut preferred = (0, Self::Prometheus);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default() {
                name if name.eq_ignore_ascii_case("application/openmetrics-text") => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Prometheus,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |text| text.parse().ok());
            // Thousandths, as RFC 9110 section 12.4.2 has them.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let quality = (quality.unwrap_or(0.0_f64).clamp(0.0, 1.0) * 1000.0) as u32;
            if quality > preferred.0 {
                preferred = (quality, format);
            }
        }
        preferred.1
    }

    /// For `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Every number, in this format.
pub fn expose(totals: Totals, samples: Vec<Sample>, format: Format) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot { totals, samples }));
    let mut page = String::with_capacity(32 * 1024);
    // A String takes everything.
    let _ = match format {
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
        Format::OpenMetrics => text::encode(&mut page, &registry),
    };
    page
}

#[derive(Debug)]
struct Snapshot {
    totals: Totals,
    samples: Vec<Sample>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (declaration, value) in counters::DECLARATIONS.iter().zip(self.totals.values()) {
            encode_counted(describe(&mut encoder, declaration)?, declaration, &value)?;
        }
        for declaration in gauges::DECLARATIONS {
            let mut samples = self.samples.iter().filter(|sample| sample.of == declaration).peekable();
            if samples.peek().is_some() {
                let mut metric = describe(&mut encoder, declaration)?;
                samples.try_for_each(|sample| encode_sample(&mut metric, declaration, sample))?;
            }
        }
        Ok(())
    }
}

static SECONDS: Unit = Unit::Seconds;
static BYTES: Unit = Unit::Bytes;

/// The encoders add what a counter's and a unit's name end in.
fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    declaration: &Declaration,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let Declaration { name, kind, help, .. } = declaration;
    let name = if *kind == Kind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let unit = match declaration.unit() {
        Some("seconds") => Some(&SECONDS),
        Some("bytes") => Some(&BYTES),
        _ => None,
    };
    let name = match unit {
        Some(unit) => name.strip_suffix(unit.as_str()).map_or(name, |name| name.trim_end_matches('_')),
        None => name,
    };
    let kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    encoder.encode_descriptor(name, help, unit, kind)
}

fn encode_counted(mut metric: MetricEncoder<'_>, declaration: &Declaration, value: &Value) -> fmt::Result {
    match value {
        Value::Counter(count) => metric.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Histogram(buckets, sum, count) => metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
        Value::Family(counts) => counts.iter().try_for_each(|(label, count)| {
            let labels = [(declaration.labels[0], *label)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)
        }),
    }
}

fn encode_sample(metric: &mut MetricEncoder<'_>, declaration: &Declaration, sample: &Sample) -> fmt::Result {
    let labels: Vec<_> = declaration.labels.iter().copied().zip(sample.labels.iter().map(String::as_str)).collect();
    let encode = |metric: &mut MetricEncoder<'_>| match declaration.kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&sample.value, None),
        Kind::Gauge | Kind::Histogram => metric.encode_gauge(&sample.value),
    };
    if labels.is_empty() { encode(metric) } else { encode(&mut metric.encode_family(&labels)?) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::*;
    use crate::observe::counters::{CounterSet, MessageOutcome};

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0, text/plain;q=0.1", Format::Prometheus),
            ("application/openmetrics-text;q=nan", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    fn exposed(format: Format) -> String {
        let set = CounterSet::new(1);
        set.of(0).messages_total.increment(MessageOutcome::Accepted);
        set.of(0).verdict_seconds.observe(7);
        let samples = vec![
            Sample::labelled(&gauges::BACKEND_HEALTHY, ["a \"b\"\\\n"], 1.0),
            Sample::labelled(&gauges::KERNEL_DROPPED, ["ban"], 3.0),
            Sample::plain(&gauges::MEMORY, 4096.0),
        ];
        expose(set.totals(), samples, format)
    }

    #[test]
    fn numbers_have_the_names_they_are_declared_by() {
        for (format, lines) in [
            (
                Format::Prometheus,
                [
                    "# TYPE smtp_gateway_messages_total counter",
                    "smtp_gateway_messages_total{outcome=\"accepted\"} 1",
                    "smtp_gateway_verdict_seconds_bucket{le=\"0.01\"} 1",
                    "smtp_gateway_verdict_seconds_sum 0.007",
                    "smtp_gateway_backend_healthy{backend=\"a \\\"b\\\"\\\\\\n\"} 1.0",
                    "smtp_gateway_kernel_dropped_total{cause=\"ban\"} 3.0",
                    "smtp_gateway_resident_memory_bytes 4096.0",
                ],
            ),
            (
                Format::OpenMetrics,
                [
                    "# TYPE smtp_gateway_messages counter",
                    "smtp_gateway_messages_total{outcome=\"accepted\"} 1",
                    "smtp_gateway_verdict_seconds_bucket{le=\"0.01\"} 1",
                    "# UNIT smtp_gateway_verdict_seconds seconds",
                    "smtp_gateway_backend_healthy{backend=\"a \\\"b\\\"\\\\\\n\"} 1.0",
                    "smtp_gateway_kernel_dropped_total{cause=\"ban\"} 3.0",
                    "# EOF",
                ],
            ),
        ] {
            let page = exposed(format);
            for line in lines {
                assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
            }
        }
    }

    /// Names of numbers in a file, each once.
    fn names_in(text: &str) -> BTreeSet<&str> {
        let is_part = |character: char| character.is_ascii_lowercase() || character == '_';
        text.split(|character| !is_part(character)).filter(|word| word.starts_with("smtp_gateway_")).collect()
    }

    #[test]
    fn dashboard_and_alerts_name_what_is_declared() {
        let mut declared = BTreeSet::new();
        for declaration in counters::DECLARATIONS.iter().chain(gauges::DECLARATIONS) {
            let name = declaration.full_name();
            if declaration.kind == Kind::Histogram {
                declared.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            } else {
                declared.insert(name);
            }
        }
        for file in [
            include_str!("../../../config/monitoring/smtp-gateway.rules.yml"),
            include_str!("../../../config/monitoring/smtp-gateway.test.yml"),
            include_str!("../../../config/monitoring/smtp-gateway.grafana.json"),
        ] {
            let names = names_in(file);
            assert!(names.len() > 10, "{names:?}");
            for name in names {
                assert!(declared.contains(name), "{name} is not declared");
            }
        }
    }

    /// What Grafana needs of a dashboard (its schema, version 39): panels with a place, a kind and queries.
    #[test]
    fn the_dashboard_is_one() {
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../config/monitoring/smtp-gateway.grafana.json")).unwrap();
        assert_eq!((&dashboard["schemaVersion"], &dashboard["uid"]), (&39.into(), &"smtp-gateway".into()));
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            assert!(matches!(panel["type"].as_str(), Some("stat" | "timeseries")), "{panel}");
            let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(place[0] + place[2] <= 24 && place[3] > 0, "{panel}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel}");
        }
    }

    /// The page `docs/metrics.md`, which a test holds to this.
    fn documentation() -> String {
        let mut page = "# Metrics\n\nWhat `[metrics] address` serves at `/metrics`, in the Prometheus and the OpenMetrics text \
                        format. This page is made from the declarations in `gateway/src/observe`; a test holds it to them.\n\n\
                        No address, domain or mailbox is ever a label.\n\n| name | kind | labels | what it is |\n\
                        | --- | --- | --- | --- |\n"
            .to_owned();
        for declaration in counters::DECLARATIONS.iter().chain(gauges::DECLARATIONS) {
            let labels: Vec<_> = declaration.labels.iter().map(|label| format!("`{label}`")).collect();
            let Declaration { kind, help, .. } = declaration;
            // A String takes everything.
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {help} |",
                declaration.full_name(),
                kind.as_str(),
                labels.join(", ")
            );
        }
        page
    }

    #[test]
    fn the_documentation_is_made_from_the_declarations() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let expected = documentation();
        let found = std::fs::read_to_string(path).unwrap_or_default();
        if found != expected {
            std::fs::write(path, expected).unwrap();
            panic!("docs/metrics.md was not what the declarations say; it is now");
        }
    }
}
