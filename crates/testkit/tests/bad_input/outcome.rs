//! What comes back, as a few words, and what must hold of every answer.

use serde_json::Value;
use testkit::raw_http::{NoAnswer, RawAnswer};

use crate::table::Api;

/// The answer in the golden file's words: the status, and the code if there is one.
pub fn words(api: Api, answer: &Result<RawAnswer, NoAnswer>) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return format!("no answer: {error}"),
    };
    let status = answer.status;
    let body = serde_json::from_slice::<Value>(&answer.body).ok();
    let bulk_error = body.as_ref().and_then(|body| body.pointer("/errors/0/errorCode"));
    match (code(api, answer, body.as_ref()), bulk_error) {
        (_, Some(code)) => format!("{status} with an item's {}", plain(code)),
        (Some(code), None) => format!("{status} {code}"),
        (None, None) => status.to_string(),
    }
}

fn code(api: Api, answer: &RawAnswer, body: Option<&Value>) -> Option<String> {
    match api {
        Api::Hub | Api::HubDevice => answer.header("iothub-errorcode").map(str::to_owned),
        Api::ProvisioningService | Api::ProvisioningDevice => body?.get("errorCode").map(plain),
        Api::Management => body?.pointer("/error/code").map(plain),
    }
}

fn plain(code: &Value) -> String {
    code.as_str().map_or_else(|| code.to_string(), str::to_owned)
}

/// What is wrong with an answer whatever was asked, if anything is.
pub fn fault(api: Api, answer: &Result<RawAnswer, NoAnswer>) -> Option<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Some(error.to_string()),
    };
    // The head of the request was not understood, so that nobody knows whose words to use.
    let is_unread = matches!(answer.status, 400 | 414 | 431) && answer.body.is_empty();
    match answer.status {
        200..=299 => None,
        500.. => Some(format!("our fault: {}", answer.text())),
        _ if is_unread => None,
        _ => {
            let body = serde_json::from_slice::<Value>(&answer.body).ok();
            let is_json = answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
            let told = match (&body, api) {
                (None, _) => false,
                (Some(body), _) if body.get("errors").is_some() => true,
                (Some(body), Api::Hub | Api::HubDevice) => {
                    body["Message"].is_string()
                        && body["ExceptionMessage"].is_string()
                        && answer.header("iothub-errorcode").is_some()
                }
                (Some(body), Api::Management) => {
                    body["error"]["code"].is_string() && body["error"]["message"].is_string()
                }
                (Some(body), Api::ProvisioningService | Api::ProvisioningDevice) => {
                    body["errorCode"].is_u64() && body["message"].is_string() && body["trackingId"].is_string()
                }
            };
            (!told || !is_json).then(|| format!("not in its API's words: {} {}", answer.status, answer.text()))
        }
    }
}
