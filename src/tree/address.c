#include "tree/address.h"

enum { COLLECTION_SHIFT = 60, COLLECTION_BITS = 4, REGION_SHIFT = 54, ID_SHIFT = 16 };
enum { BY_LINK = 0x4000, BY_LINK_SHIFT = 10, BY_LINK_REVS = 1 << BY_LINK_SHIFT };  /* likewise */
enum { DELETED = 0x8000, DELETED_SHIFT = 11, DELETED_MARKS = 1 << DELETED_SHIFT }; /* in the lowest bits */
enum {
    META_REVISIONS = 12,
    META = 13,
    MEDIA_FILES = 14,
    MEDIA = COLLECTION_MEDIA
}; /* in the place of a collection */
#define ID_MASK ((UINT64_C(1) << 38) - 1)
#define MEDIA_MASK ((UINT64_C(1) << REGION_SHIFT) - 1)

static uint64_t pack(unsigned collection, unsigned region, uint64_t id, unsigned low)
{
    return (uint64_t)(collection & 0xf) << COLLECTION_SHIFT | (uint64_t)(region & 0x3f) << REGION_SHIFT |
           (id & ID_MASK) << ID_SHIFT | (low & 0xffff);
}

uint64_t address_revision(const struct row_key *key, uint64_t mark)
{
    return pack(key->collection, key->region, (uint64_t)key->id, (unsigned)(mark & 0xffff));
}

static uint64_t pack_media(unsigned kind, unsigned region, uint64_t number)
{
    return (uint64_t)kind << COLLECTION_SHIFT | (uint64_t)(region & 0x3f) << REGION_SHIFT |
           (number & MEDIA_MASK);
}

uint64_t address_row(const struct row_key *key)
{
    if (key->collection == COLLECTION_MEDIA)
        return address_meta(key->region, (uint64_t)key->id);
    return address_revision(key, 0);
}

uint64_t address_deleted(const struct row_key *key, uint64_t mark)
{
    return pack(0, key->region, (uint64_t)key->id,
                DELETED | (unsigned)key->collection << DELETED_SHIFT | (unsigned)(mark % DELETED_MARKS));
}

uint64_t address_by_link(const struct row_key *key, uint64_t rev)
{
    return pack(0, key->region, (uint64_t)key->id,
                BY_LINK | (unsigned)key->collection << BY_LINK_SHIFT | (unsigned)(rev % BY_LINK_REVS));
}

uint64_t address_by_field(const struct row_key *key, unsigned field)
{
    return pack(0, key->region, (uint64_t)field << COLLECTION_BITS | key->collection, PLACE_BY_FIELD);
}

uint64_t address_by_value(uint64_t number)
{
    return pack(0, 0, number, PLACE_BY_VALUE);
}

uint64_t address_by_value_ino(uint64_t hash)
{
    return pack(0, (unsigned)(hash >> 58), hash, PLACE_BY_VALUE);
}

uint64_t address_place(enum place_kind kind, unsigned collection, unsigned region)
{
    return pack(0, region, collection, kind);
}

uint64_t address_node(uint64_t number)
{
    return pack(0, 0, number, PLACE_NODE);
}

uint64_t address_media(unsigned region, uint64_t ino)
{
    return pack_media(MEDIA, region, ino);
}

uint64_t address_media_file(unsigned region, uint64_t node)
{
    return pack_media(MEDIA_FILES, region, node);
}

bool address_is_revision(const struct place *place, uint64_t mark)
{
    return (mark & 0xffff) == place->mark;
}

uint64_t address_meta(unsigned region, uint64_t ino)
{
    return pack_media(META, region, ino);
}

uint64_t address_meta_revisions(unsigned region, uint64_t ino)
{
    return pack_media(META_REVISIONS, region, ino);
}

bool address_parse(uint64_t nodeid, struct place *place)
{
    unsigned collection = (unsigned)(nodeid >> COLLECTION_SHIFT), low = (unsigned)(nodeid & 0xffff);
    uint64_t id = nodeid >> ID_SHIFT & ID_MASK;
    *place = (struct place){.key.region = (uint8_t)(nodeid >> REGION_SHIFT & 0x3f)};
    if (collection >= META_REVISIONS) {
        static const enum place_kind kinds[] = {PLACE_META_REVISIONS, PLACE_META, PLACE_MEDIA_FILE,
                                                PLACE_MEDIA_FOLDER};
        place->kind = kinds[collection - META_REVISIONS];
        place->number = nodeid & MEDIA_MASK;
        return true;
    }
    if (collection) {
        place->kind = PLACE_ROW;
        place->key.collection = (uint8_t)collection;
        place->key.id = (int64_t)id;
        place->mark = (uint16_t)low;
        return collection_numbered(collection) != NULL;
    }
    if (low & DELETED) {
        place->kind = PLACE_DELETED_ROW;
        place->key.collection = (uint8_t)(low >> DELETED_SHIFT & 0xf);
        place->key.id = (int64_t)id;
        place->mark = (uint16_t)(low % DELETED_MARKS);
        return collection_numbered(place->key.collection) != NULL;
    }
    if (low & BY_LINK) {
        place->kind = PLACE_BY_LINK;
        place->key.collection = (uint8_t)(low >> BY_LINK_SHIFT & 0xf);
        place->key.id = (int64_t)id;
        place->mark = (uint16_t)(low % BY_LINK_REVS);
        return collection_numbered(place->key.collection) != NULL;
    }
    if (low < PLACE_ROOT || low > PLACE_NODE)
        return false;
    place->kind = (enum place_kind)low;
    if (place->kind == PLACE_NODE || place->kind == PLACE_BY_VALUE)
        place->number = id;
    else
        place->key.collection = (uint8_t)(id & 0xf);
    if (place->kind == PLACE_BY_FIELD)
        place->number = id >> COLLECTION_BITS;
    return true;
}
