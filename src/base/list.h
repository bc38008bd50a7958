/*
 * An intrusive list: the entry is part of the caller's struct. For what is walked only to take it apart. Not
 * thread-safe: the owner's lock guards it.
 */
#pragma once

struct list_entry {
    struct list_entry *next, **at; /* what points to this one */
};

static inline void list_add(struct list_entry **head, struct list_entry *entry)
{
    entry->next = *head;
    entry->at = head;
    if (entry->next)
        entry->next->at = &entry->next;
    *head = entry;
}

static inline void list_remove(struct list_entry *entry)
{
    *entry->at = entry->next;
    if (entry->next)
        entry->next->at = entry->at;
}
