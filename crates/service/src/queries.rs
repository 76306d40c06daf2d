//! Queries over the twins of a hub and what became of its jobs, page by page.
//!
//! A page is put together of bounded pieces of a search. Nothing is kept between pages: a continuation says where the next
//! one begins, and how many rows `TOP` still allows.

use std::fmt;
use std::sync::Arc;

use domain::access::Action;
use domain::ids::HubKey;
use domain::job::{DeviceJob, DeviceOutcome};
use domain::operation::query::{Answer, Ask};
use domain::operation::{Caller, Cursor, Page, PageRequest};
use domain::query::{self, Collection, Groups, Plan, Root, Select, document};
use serde_json::{Map, Value};
use store::ports::{DeviceJobsWanted, Found, Place};

use crate::Service;
use crate::error::Error;

/// Most rows of a page (`contract/hub-service.md 6`).
const PAGE_MAX: usize = 1_000;

/// A page ends with the row that brings it to so many bytes, metadata not counted: columns can repeat a document.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Rows of jobs looked at in one go.
const JOB_ROWS_MAX: usize = 1_000;

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// Behind a twin.
    Place(Place),
    /// Behind a group.
    Group(String),
}

/// What a continuation says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Continuation {
    /// Rows of the pages before.
    given: u64,
    start: Start,
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Start::Place(place) => write!(f, "{}:t:{}", self.given, place.0),
            Start::Group(key) => write!(f, "{}:g:{key}", self.given),
        }
    }
}

impl Continuation {
    /// Reads what [`fmt::Display`] wrote for a plan of this kind.
    fn parse(cursor: &Cursor, plan: &Plan) -> Option<Self> {
        let mut parts = cursor.0.splitn(3, ':');
        let (given, kind, start) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let start = match (kind, &plan.select) {
            ("t", Select::Whole | Select::Columns(_)) => Start::Place(Place(start.parse().ok()?)),
            ("g", Select::Groups { .. }) => Start::Group(start.to_owned()),
            _ => return None,
        };
        Some(Self { given, start })
    }
}

impl Service {
    /// Performs `ask` at the hub that the caller dialled.
    pub(crate) async fn perform_query(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let Ask::Run { text, page } = ask;
        let hub = self.authorize_at_hub(caller, Action::Query, &["devices".to_owned(), "query".to_owned()])?;
        let plan = query::parse(&text).map_err(|invalid| Error::invalid(format!("The query, {invalid}.")))?;
        if plan.collection == Collection::Jobs {
            return Ok(Answer::DeviceJobs(self.device_job_page(hub.key, &plan, &page).await?));
        }
        let plan = Arc::new(plan);
        match &plan.select {
            Select::Whole => {
                let page = self.find_page(hub.key, &plan, &page).await?;
                let items = page.items.into_iter().map(|found| (found.twin, found.identity)).collect();
                Ok(Answer::Twins(Page { items, next: page.next }))
            }
            Select::Columns(columns) => {
                let page = self.find_page(hub.key, &plan, &page).await?;
                let row = |found: Found| Plan::project(columns, &document::of_twin(&found.twin, &found.identity));
                Ok(Answer::Rows(Page { items: page.items.into_iter().map(row).collect(), next: page.next }))
            }
            Select::Groups { keys, columns } => {
                Ok(Answer::Rows(self.group_page(hub.key, &plan, Groups::new(keys, columns), &page).await?))
            }
        }
    }

    /// A page of twins. One more than it holds is looked for, to know whether there is another page, unless `TOP` says so.
    async fn find_page(&self, hub: HubKey, plan: &Arc<Plan>, page: &PageRequest) -> Result<Page<Found>, Error> {
        let (given, start) = begin(plan, page)?;
        let limit = limit(plan, page, given);
        let is_last = plan.top.is_some_and(|top| given.saturating_add(limit as u64) >= top);
        let mut place = match start {
            Some(Start::Place(place)) => Some(place),
            Some(Start::Group(_)) | None => None,
        };
        let copies = match &plan.select {
            Select::Columns(columns) => columns.len(),
            Select::Whole | Select::Groups { .. } => 1,
        };
        let (mut items, mut bytes) = (Vec::new(), 0_usize);
        let has_more = loop {
            let searched = self.0.store.find_twins(hub, plan, place, limit + 1 - items.len()).await?;
            let mut is_full = false;
            for found in searched.result {
                is_full = items.len() == limit || bytes >= PAGE_BYTES_MAX;
                if is_full {
                    break;
                }
                bytes = bytes.saturating_add(found.bytes.saturating_mul(copies));
                items.push(found);
            }
            place = searched.next;
            if is_full || place.is_none() || is_last && items.len() == limit {
                break is_full;
            }
        };
        let given = given + items.len() as u64;
        let last = items.last().map(|found: &Found| Start::Place(found.place));
        Ok(Page { items, next: continuation(plan, given, last.filter(|_| has_more)) })
    }

    /// A page of what became of jobs. What the store does not know to ask for is asked here, row by row.
    async fn device_job_page(&self, hub: HubKey, plan: &Plan, page: &PageRequest) -> Result<Page<DeviceJob>, Error> {
        let (given, start) = begin(plan, page)?;
        let limit = limit(plan, page, given);
        let mut place = match start {
            Some(Start::Place(place)) => Some(place),
            Some(Start::Group(_)) | None => None,
        };
        let text = |root: &Root| plan.required_text(root).map(str::to_owned);
        let wanted = DeviceJobsWanted { job: text(&Root::Other("jobId".into())), device: text(&Root::DeviceId) };
        let (mut items, mut last, mut bytes) = (Vec::new(), None, 0_usize);
        let has_more = 'search: loop {
            let searched = self.0.store.find_device_jobs(hub, &wanted, place, JOB_ROWS_MAX).await?;
            for (found, row) in searched.result {
                if !plan.matches(&document::of_device_job(&row)) {
                    continue;
                }
                if items.len() == limit || bytes >= PAGE_BYTES_MAX {
                    break 'search true;
                }
                if let Some(DeviceOutcome::Responded(response)) = &row.outcome {
                    bytes = bytes.saturating_add(response.payload.bytes().len());
                }
                last = Some(Start::Place(found));
                items.push(row);
            }
            place = searched.next;
            if place.is_none() {
                break false;
            }
        };
        let given = given + items.len() as u64;
        Ok(Page { items, next: continuation(plan, given, last.filter(|_| has_more)) })
    }

    /// A page of groups, which are counted anew for each page.
    async fn group_page(
        &self,
        hub: HubKey,
        plan: &Arc<Plan>,
        mut groups: Groups,
        page: &PageRequest,
    ) -> Result<Page<Map<String, Value>>, Error> {
        let (given, start) = begin(plan, page)?;
        let mut place = None;
        loop {
            let searched = self.0.store.group_twins(hub, plan, place, groups).await?;
            let searched = searched.map_err(|too_many| Error::invalid(format!("{too_many}.")))?;
            (groups, place) = (searched.result, searched.next);
            if place.is_none() {
                break;
            }
        }
        let behind = match &start {
            Some(Start::Group(key)) => Some(key.as_str()),
            Some(Start::Place(_)) | None => None,
        };
        let (items, next) = groups.rows(behind, limit(plan, page, given));
        let given = given + items.len() as u64;
        Ok(Page { items, next: continuation(plan, given, next.map(Start::Group)) })
    }
}

/// How many rows there were before, and where the page begins.
fn begin(plan: &Plan, page: &PageRequest) -> Result<(u64, Option<Start>), Error> {
    let Some(cursor) = &page.after else { return Ok((0, None)) };
    let Some(Continuation { given, start }) = Continuation::parse(cursor, plan) else {
        return Err(Error::invalid("The continuation does not belong to this query."));
    };
    Ok((given, Some(start)))
}

/// Most rows of the page.
fn limit(plan: &Plan, page: &PageRequest, given: u64) -> usize {
    let left = plan.top.map_or(u64::MAX, |top| top.saturating_sub(given));
    page.limit.clamp(1, PAGE_MAX).min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Where the next page begins; `None` if there is none, also because `TOP` allows no more rows.
fn continuation(plan: &Plan, given: u64, start: Option<Start>) -> Option<Cursor> {
    let start = start.filter(|_| plan.top.is_none_or(|top| given < top))?;
    Some(Cursor(Continuation { given, start }.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_is_read_for_the_kind_of_query_that_it_was_given_to() {
        let plan = |text| query::parse(text).unwrap();
        let twins = plan("SELECT * FROM devices");
        let groups = plan("SELECT COUNT() AS n FROM devices GROUP BY tags.a");
        let place = Continuation { given: 3, start: Start::Place(Place(17)) };
        let group = Continuation { given: 2, start: Start::Group("\"a:b\",1".to_owned()) };
        let read = |continuation: &Continuation, plan| Continuation::parse(&Cursor(continuation.to_string()), plan);
        assert_eq!(read(&place, &twins), Some(place.clone()));
        assert_eq!(read(&group, &groups), Some(group.clone()));
        assert_eq!((read(&place, &groups), read(&group, &twins)), (None, None));
        for text in ["", "3", "3:t", "3:t:x", "x:t:1", "3:u:1", "-1:t:1", ":::"] {
            assert_eq!(Continuation::parse(&Cursor(text.to_owned()), &twins), None, "{text}");
        }
    }
}
