#include "entity/document.h"

struct document *document_new(size_t size)
{
    struct document *document = malloc(sizeof *document + size + 1);
    if (!document)
        return NULL;
    *document = (struct document){.revision.size = size, .references = 1};
    document->text[size] = '\0';
    return document;
}

struct document *document_ref(struct document *document)
{
    if (document)
        __atomic_add_fetch(&document->references, 1, __ATOMIC_RELAXED);
    return document;
}

void document_unref(struct document *document)
{
    if (document && __atomic_sub_fetch(&document->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(document);
}
