//! Scheduled jobs as a hub's service API asks for them and shows them (`contract/hub-service.md 8.1`).
//!
//! Reads only shapes; what a condition means, and how long a job may take, is the service's to judge. Start at [`decode`].

use std::time::Duration;

use bytes::Bytes;
use domain::ids::JobId;
use domain::job::{Draft, EXECUTION_DEFAULT_S, Filter, Job, JobKind, JobStatus, Tally, Work};
use domain::method::Call;
use domain::operation::job::{Answer, Ask};
use domain::query::document::{self, job_kind, moment};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::registry_json::invalid;
use super::{method_json, twin_json};
use crate::error::Refused;
use crate::http::{Target, is, json as respond, list, page};
use crate::json::{self, InvalidJson, object, text};

/// Names of kinds of jobs that clients know and that are not scheduled: none is ever among the jobs of a hub.
const OTHER_KINDS: [&str; 12] = [
    "unknown",
    "export",
    "import",
    "backup",
    "readDeviceProperties",
    "writeDeviceProperties",
    "updateDeviceConfiguration",
    "rebootDevice",
    "factoryResetDevice",
    "firmwareUpdate",
    "restoreFromBackup",
    "failoverDataCopy",
];
/// Names of states that clients know and that no job is in.
const OTHER_STATES: [&str; 2] = ["unknown", "enqueued"];
/// The path of lists, which no job can have.
const QUERY: &str = "query";

/// Reads a request for what is below `/jobs/v2`.
pub(super) fn decode(
    request: &Request<Bytes>,
    method: &Method,
    target: &Target,
    rest: &[&str],
) -> Result<Ask, Refused> {
    match (method, rest) {
        (&Method::GET, [word]) if is(word, QUERY) => {
            Ok(Ask::List { filter: parse_filter(target)?, page: page(request.headers())? })
        }
        (_, [word]) if is(word, QUERY) => Err(Refused::wrong_method()),
        (&Method::GET, [id]) => Ok(Ask::Find(parse_id(id)?)),
        (&Method::PUT, [id]) => {
            let draft = parse_draft(parse_id(id)?, &json::parse(request.body())?)?;
            Ok(Ask::Schedule(Box::new(draft)))
        }
        (&Method::POST, [id, word]) if is(word, "cancel") => Ok(Ask::Cancel(parse_id(id)?)),
        (_, [_]) => Err(Refused::wrong_method()),
        (_, [_, word]) if is(word, "cancel") => Err(Refused::wrong_method()),
        _ => Err(Refused::nothing_here()),
    }
}

fn parse_id(text: &str) -> Result<JobId, Refused> {
    JobId::parse(text).map_err(|fault| invalid(format!("The job ID: {fault}.")))
}

/// Which jobs are wanted; `None` if none can be among them.
fn parse_filter(target: &Target) -> Result<Option<Filter>, Refused> {
    let asked = |name| target.parameter(name).filter(|text| !text.is_empty());
    let (kind, status) = (asked("jobType"), asked("jobStatus"));
    let filter = Filter { kind: kind.and_then(parse_kind), status: status.and_then(parse_status) };
    let is_known = |text: &str, others: &[&str]| others.iter().any(|known| known.eq_ignore_ascii_case(text));
    match (kind, filter.kind, status, filter.status) {
        (Some(kind), None, ..) if !is_known(kind, &OTHER_KINDS) => Err(invalid("jobType is no type of jobs.")),
        (.., Some(status), None) if !is_known(status, &OTHER_STATES) => Err(invalid("jobStatus is no state of jobs.")),
        (Some(_), None, ..) | (.., Some(_), None) => Ok(None),
        _ => Ok(Some(filter)),
    }
}

fn parse_kind(text: &str) -> Option<JobKind> {
    [JobKind::PatchTwin, JobKind::Invoke].into_iter().find(|kind| job_kind(*kind).eq_ignore_ascii_case(text))
}

const fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Scheduled => "scheduled",
        JobStatus::Queued => "queued",
        JobStatus::Running => "running",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}

fn parse_status(text: &str) -> Option<JobStatus> {
    use JobStatus::{Cancelled, Completed, Failed, Queued, Running, Scheduled};

    let known = [Scheduled, Queued, Running, Completed, Failed, Cancelled];
    known.into_iter().find(|known| status(*known).eq_ignore_ascii_case(text))
}

/// Reads what is to be done, to whom, and when. Times and lengths may be null, which is at once and as usual.
fn parse_draft(id: JobId, body: &Value) -> Result<Draft, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    if text(body, "jobId")?.is_some_and(|named| named != id.as_str()) {
        return Err(invalid("The job ID of the body is not that of the path."));
    }
    let kind = text(body, "type")?.ok_or(InvalidJson::Missing { member: "type" })?;
    let work = match parse_kind(&kind) {
        Some(JobKind::PatchTwin) => parse_patch(body)?,
        Some(JobKind::Invoke) => {
            let call = object(body, "cloudToDeviceMethod")?;
            let call = call.ok_or(InvalidJson::Missing { member: "cloudToDeviceMethod" })?;
            Work::Invoke(method_json::parse_call(call)?)
        }
        None => return Err(invalid("type is neither scheduleUpdateTwin nor scheduleDeviceMethod.")),
    };
    let starts_at = match text(body, "startTime")? {
        None => None,
        Some(at) => Some(document::parse_moment(&at).ok_or_else(|| invalid("startTime is no moment of ISO 8601."))?),
    };
    let execution_s = match body.get("maxExecutionTimeInSeconds") {
        None | Some(Value::Null) => EXECUTION_DEFAULT_S,
        Some(Value::Number(number)) if number.is_u64() => number.as_u64().unwrap_or(u64::MAX),
        Some(Value::Number(number)) if number.is_i64() => 0,
        Some(_) => {
            return Err(InvalidJson::Type { member: "maxExecutionTimeInSeconds", wanted: "a whole number" }.into());
        }
    };
    Ok(Draft {
        id,
        work,
        condition: text(body, "queryCondition")?.ok_or(InvalidJson::Missing { member: "queryCondition" })?,
        starts_at,
        execution_max: Duration::from_secs(execution_s),
    })
}

/// What is merged into each twin. Its etag may be `*` (`contract/hub-service.md 8.1`), which any twin's is.
fn parse_patch(body: &Value) -> Result<Work, Refused> {
    let twin = object(body, "updateTwin")?.ok_or(InvalidJson::Missing { member: "updateTwin" })?;
    let named = text(twin, "etag")?.filter(|etag| !matches!(etag.trim_matches('"'), "" | "*"));
    let etag = match named {
        None => None,
        Some(etag) => {
            let etag = twin_json::parse_etag(etag.trim_matches('"'));
            Some(etag.ok_or_else(|| invalid("The etag of updateTwin is none that was given out."))?)
        }
    };
    Ok(Work::PatchTwin { change: twin_json::parse_change(twin)?, etag })
}

/// Shows what was answered.
pub(super) fn encode(answer: &Answer) -> Response<Bytes> {
    match answer {
        Answer::Job(job) => respond(StatusCode::OK, &show(job)),
        // As the real service answers for a job that it does not know (`contract/hub-service.md 8.1`).
        Answer::Unknown(id) => respond(StatusCode::OK, &json!({ "jobId": id, "type": "unknown", "status": "unknown" })),
        Answer::Jobs(page) => list(page.items.iter().map(show).collect(), "JobResponse", page.next.as_ref()),
    }
}

fn show(job: &Job) -> Value {
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    put("jobId", json!(job.id));
    put("queryCondition", json!(job.condition));
    put("createdTime", json!(moment(job.created_at)));
    put("startTime", json!(moment(job.starts_at)));
    if let Some(ended_at) = job.ended_at {
        put("endTime", json!(moment(ended_at)));
    }
    put("maxExecutionTimeInSeconds", json!(job.execution_max.as_secs()));
    put("type", json!(job_kind(job.work.kind())));
    match &job.work {
        Work::PatchTwin { change, etag } => put(
            "updateTwin",
            json!({
                "etag": etag.map_or_else(|| "*".to_owned(), twin_json::etag_text),
                "tags": change.tags,
                "properties": { "desired": change.desired },
            }),
        ),
        Work::Invoke(call) => put("cloudToDeviceMethod", show_call(call)),
    }
    put("status", json!(status(job.status)));
    if let Some(failure) = &job.failure {
        put("failureReason", json!(failure.to_string()));
    }
    put("deviceJobStatistics", json!(job.tally.as_ref().map(show_tally)));
    Value::Object(shown)
}

fn show_call(call: &Call) -> Value {
    json!({
        "methodName": call.method,
        // It was checked to be JSON when it was taken.
        "payload": serde_json::from_slice::<Value>(call.payload.bytes()).unwrap_or_default(),
        "responseTimeoutInSeconds": call.timeouts.response.as_secs(),
        "connectTimeoutInSeconds": call.timeouts.connect.as_secs(),
    })
}

fn show_tally(tally: &Tally) -> Value {
    json!({
        "deviceCount": tally.devices(),
        "failedCount": tally.failed,
        "succeededCount": tally.succeeded,
        "runningCount": tally.running,
        "pendingCount": tally.pending,
    })
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::job::JobFailure;
    use domain::operation::Page;

    use super::*;

    fn job() -> Job {
        let body = json!({
            "type": "scheduleUpdateTwin",
            "updateTwin": { "etag": "*", "tags": { "a": 1 } },
            "queryCondition": "*",
        });
        let Draft { id, work, condition, execution_max, .. } = parse_draft(JobId::parse("j").unwrap(), &body).unwrap();
        let at = UnixTime::from_seconds(1_706_702_400);
        Job {
            id,
            work,
            condition,
            execution_max,
            created_at: at,
            starts_at: at,
            ended_at: None,
            status: JobStatus::Queued,
            failure: None,
            tally: None,
        }
    }

    #[test]
    fn a_job_shows_what_is_known_of_it() {
        let shown = show(&job());
        let expected = concat!(
            r#"{"jobId":"j","queryCondition":"*","createdTime":"2024-01-31T12:00:00.0000000Z","#,
            r#""startTime":"2024-01-31T12:00:00.0000000Z","maxExecutionTimeInSeconds":3600,"type":"scheduleUpdateTwin","#,
            r#""updateTwin":{"etag":"*","tags":{"a":1},"properties":{"desired":null}},"status":"queued","#,
            r#""deviceJobStatistics":null}"#,
        );
        assert_eq!(shown.to_string(), expected);

        let tally = Tally { pending: 1, running: 2, succeeded: 3, failed: 4 };
        let ended = Job {
            status: JobStatus::Failed,
            failure: Some(JobFailure::TimeRanOut),
            ended_at: Some(UnixTime::from_seconds(1_706_702_401)),
            tally: Some(tally),
            ..job()
        };
        let shown = show(&ended);
        assert_eq!(
            (
                &shown["status"],
                &shown["failureReason"],
                &shown["endTime"],
                &shown["deviceJobStatistics"]["deviceCount"]
            ),
            (
                &json!("failed"),
                &json!("the job took longer than it may"),
                &json!("2024-01-31T12:00:01.0000000Z"),
                &json!(10)
            )
        );
    }

    #[test]
    fn jobs_are_listed_bare_and_one_that_is_unknown_is_no_failure() {
        let page = Page { items: vec![job()], next: None };
        let response = encode(&Answer::Jobs(page));
        assert_eq!(response.headers()["x-ms-item-type"], "JobResponse");
        assert!(response.body().starts_with(b"[{"));
        let response = encode(&Answer::Unknown(JobId::parse("j").unwrap()));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(&response.body()[..], br#"{"jobId":"j","type":"unknown","status":"unknown"}"#);
    }

    #[test]
    fn every_state_is_read_as_it_is_written() {
        let target = |query: &str| Target::parse(&format!("/jobs/v2/query?{query}").parse().unwrap()).unwrap();
        let running = Filter { status: Some(JobStatus::Running), kind: Some(JobKind::Invoke) };
        let cases = [
            ("", Ok(Some(Filter::default()))),
            ("jobStatus=&jobType=", Ok(Some(Filter::default()))),
            ("jobStatus=RUNNING&jobType=scheduleDeviceMethod", Ok(Some(running))),
            ("jobType=export", Ok(None)),
            ("jobStatus=enqueued", Ok(None)),
            ("jobType=x", Err(())),
            ("jobType=export&jobStatus=x", Err(())),
        ];
        for (query, expected) in cases {
            assert_eq!(parse_filter(&target(query)).map_err(drop), expected, "{query}");
        }
    }
}
