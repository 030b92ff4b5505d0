//! Asynchronous events of one controller: what happened, what the host wants to hear of, and what it was told and has not looked at yet.
//!
//! An event is told once; the next of its kind follows when the host has read the log page that tells more.

use crate::reservation::News;
use crate::wire::put;
use std::collections::{BTreeSet, VecDeque};

/// Of the list of changed namespaces.
const CHANGED_MAX: usize = 1024;
const RESERVATION_NEWS_MAX: usize = 256;
pub const RESERVATION_PAGE_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Namespaces,
    Discovery,
    Reservation,
}

impl Event {
    const ALL: [Self; 3] = [Self::Namespaces, Self::Discovery, Self::Reservation];

    /// Of the completion: type, information, log page.
    fn result(self) -> u32 {
        match self {
            Self::Namespaces => 0x04_0002,
            Self::Discovery => 0x70_f002,
            Self::Reservation => 0x80_0006,
        }
    }

    /// Its bit in Asynchronous Event Configuration; none: always on.
    fn wanted_bit(self) -> Option<u32> {
        match self {
            Self::Namespaces => Some(1 << 8),
            Self::Discovery => Some(1 << 31),
            Self::Reservation => None,
        }
    }
}

#[derive(Default)]
pub struct Events {
    /// Asynchronous Event Configuration.
    pub configuration: u32,
    happened: [bool; 3],
    told: [bool; 3],
    changed: BTreeSet<u32>,
    news: VecDeque<(News, u32)>,
    news_count: u64,
}

impl Events {
    /// True: there may be something to tell.
    pub fn happen(&mut self, event: Event) -> bool {
        let wanted = event.wanted_bit().is_none_or(|bit| self.configuration & bit != 0);
        self.happened[event as usize] |= wanted;
        wanted
    }

    pub fn namespaces_changed(&mut self, ids: Vec<u32>) -> bool {
        self.changed.extend(ids);
        self.happen(Event::Namespaces)
    }

    pub fn reservation(&mut self, news: News, namespace_id: u32) -> bool {
        if self.news.len() == RESERVATION_NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back((news, namespace_id));
        self.news_count += 1;
        self.happen(Event::Reservation)
    }

    /// What the host is told next.
    pub fn next(&mut self) -> Option<u32> {
        let index = (0..Event::ALL.len()).find(|&index| self.happened[index] && !self.told[index])?;
        (self.happened[index], self.told[index]) = (false, true);
        Some(Event::ALL[index].result())
    }

    /// The host read the page that tells more.
    pub fn looked(&mut self, event: Event) {
        self.told[event as usize] = false;
    }

    /// Changed Namespace List: 4 bytes each; all in one if there are too many. `forget`: from here on anew.
    pub fn changed_page(&mut self, forget: bool) -> Vec<u8> {
        let mut page: Vec<u8> = if self.changed.len() > CHANGED_MAX {
            u32::MAX.to_le_bytes().to_vec()
        } else {
            self.changed.iter().flat_map(|id| id.to_le_bytes()).collect()
        };
        page.resize(CHANGED_MAX * 4, 0);
        if forget {
            self.changed.clear();
        }
        page
    }

    /// Reservation Notification: the oldest, which is gone if `forget`.
    pub fn reservation_page(&mut self, forget: bool) -> Vec<u8> {
        let mut page = vec![0; RESERVATION_PAGE_BYTES];
        let Some(&(news, namespace_id)) = self.news.front() else {
            return page;
        };
        let number = self.news_count - self.news.len() as u64 + 1;
        put(&mut page, 0, &number.to_le_bytes());
        page[8] = news as u8;
        page[9] = (self.news.len() - 1).min(255) as u8;
        put(&mut page, 12, &namespace_id.to_le_bytes());
        if forget {
            self.news.pop_front();
            self.happened[Event::Reservation as usize] |= !self.news.is_empty();
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_its_page_is_read() {
        let mut events = Events::default();
        assert!(!events.namespaces_changed(vec![3]) && events.next().is_none(), "nobody asked");
        events.configuration = 1 << 8;
        assert!(events.namespaces_changed(vec![1]));
        assert_eq!((events.next(), events.next()), (Some(0x04_0002), None));
        events.namespaces_changed(vec![2]);
        assert_eq!(events.next(), None);
        let page = events.changed_page(true);
        assert_eq!(page[..16], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        events.looked(Event::Namespaces);
        assert_eq!(events.next(), Some(0x04_0002));
        assert_eq!(events.changed_page(true)[..4], [0; 4]);
    }

    #[test]
    fn news_of_reservations_come_one_by_one() {
        let mut events = Events::default();
        events.reservation(News::ReservationReleased, 5);
        events.reservation(News::RegistrationPreempted, 6);
        assert_eq!(events.next(), Some(0x80_0006));
        let page = events.reservation_page(true);
        assert_eq!((page[0], page[8], page[9], page[12]), (1, 2, 1, 5));
        events.looked(Event::Reservation);
        assert_eq!(events.next(), Some(0x80_0006));
        let page = events.reservation_page(true);
        assert_eq!((page[0], page[8], page[9], page[12]), (2, 1, 0, 6));
        events.looked(Event::Reservation);
        assert_eq!((events.next(), events.reservation_page(true)[8]), (None, 0));
    }
}
