//! Memory of long vectors: in huge pages, where the system has them.
//!
//! A kernel that is limited by memory spends part of its time on the translation of addresses. With pages of 2 MiB
//! instead of 4 KiB, a core finds the addresses of a whole vector in its tables. A storage starts with pages that are not
//! there yet, so that a buffer that is never used costs address space only.

use gradwire_core::Storage;

/// Bytes from which on a buffer gets a mapping of its own, so that memory that it gives back goes to the system. It can be
/// shorter than a huge page: the buffers of a pool, such as the chunks of a vector, are mapped one after the other, and the
/// system merges neighbouring mappings. So they lie in huge pages together, and a transport that reads them from another
/// process finds their addresses faster.
#[cfg(target_os = "linux")]
const LONG: usize = 128 << 10;

/// A storage of zeros, with `len` bytes, rounded up to whole words. On Linux, a long one asks for huge pages; the system
/// decides whether it gets them (`/sys/kernel/mm/transparent_hugepage`). Results are the same with any pages.
pub fn zeroed(len: usize) -> Storage {
    #[cfg(target_os = "linux")]
    if len >= LONG {
        use memmap2::{Advice, MmapMut};
        // A system that refuses the mapping or the advice has ordinary pages.
        if let Ok(map) = MmapMut::map_anon(len.next_multiple_of(4)) {
            let _ = map.advise(Advice::HugePage);
            return Storage::in_memory(Box::new(map), len, zeroed);
        }
    }
    Storage::zeroed(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_storages_are_zeros_of_the_length() {
        for len in [0, 1, 4096, (128 << 10) - 1, 128 << 10, (128 << 10) + 5, 8 << 20] {
            let mut storage = zeroed(len);
            assert_eq!(storage.words().len(), len.div_ceil(4));
            assert!(storage.words().iter().all(|word| *word == 0));
            if let Some(last) = storage.words_mut().last_mut() {
                *last = 7;
                assert_eq!(storage.clone().words().last(), Some(&7));
            }
        }
    }

    /// Where the system gives huge pages to those that ask, a long storage asks.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_storage_asks_for_huge_pages() {
        let storage = zeroed(LONG);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // Neighbouring mappings are merged, so the storage may lie behind the start of its mapping.
        let address = storage.words().as_ptr() as usize;
        let mut inside = false;
        let flags = maps.lines().find(|line| {
            if let Some((start, end)) = line.split_whitespace().next().and_then(|range| range.split_once('-')) {
                let parse = |text| usize::from_str_radix(text, 16);
                if let (Ok(start), Ok(end)) = (parse(start), parse(end)) {
                    inside = (start..end).contains(&address);
                }
            }
            inside && line.starts_with("VmFlags:")
        });
        let flags = flags.unwrap_or_else(|| panic!("a mapping at {address:x}"));
        if std::fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
        }
    }
}
