-- Which fields of documents have an index: what a collection's .by has as folders (code/21_by.sql).

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE TABLE indexed_fields (
    collection  smallint NOT NULL REFERENCES collections (number),
    number      smallint NOT NULL CHECK (number BETWEEN 1 AND 255),
    name        text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]*$'),
    table_name  name NOT NULL,
    column_name name NOT NULL,
    id_column   name NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('text', 'number', 'day')),
    is_folded   boolean NOT NULL,
    is_unique   boolean NOT NULL,
    choices     text[],
    PRIMARY KEY (collection, number),
    UNIQUE (collection, name)
);
COMMENT ON TABLE indexed_fields IS 'Fields of documents that have an index; each file code/4*_*.sql declares its own';
COMMENT ON COLUMN indexed_fields.collection IS 'collections.number';
COMMENT ON COLUMN indexed_fields.number IS 'Number in inode numbers; never reused within the collection';
COMMENT ON COLUMN indexed_fields.name IS 'Its name in the document and below .by';
COMMENT ON COLUMN indexed_fields.table_name IS 'The table that has the column: the collection''s, or one of a part';
COMMENT ON COLUMN indexed_fields.column_name IS 'The column';
COMMENT ON COLUMN indexed_fields.id_column IS 'The column of that table that has the document''s id';
COMMENT ON COLUMN indexed_fields.kind IS 'What its values are: text, whole numbers from 1 on, or days';
COMMENT ON COLUMN indexed_fields.is_folded IS 'Whether it is compared, and indexed, by lower()';
COMMENT ON COLUMN indexed_fields.is_unique IS 'Whether no two rows have the same value';
COMMENT ON COLUMN indexed_fields.choices IS
    'All values that there can be, in their order, where they are a few words; NULL where they are not';
