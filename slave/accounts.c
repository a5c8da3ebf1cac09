/* accounts.c - who may log in at this host while it has no master */
#include "slave/accounts.h"

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/log.h"
#include "slave/ledger.h"

/* Of all lines. A pool has one account, or a few; the row is read for each login. */
#define ACCOUNTS_BYTES_MAX (64 * 1024)

static bool is_account(const struct value *name, const struct value *hash)
{
    return name->kind == KIND_STRING && hash->kind == KIND_STRING && *name->text && *hash->text
           && !strpbrk(name->text, "\n") && !strpbrk(hash->text, " \n");
}

void accounts_put(struct ledger *ledger, const struct value *accounts)
{
    struct buffer lines;

    if (accounts->kind != KIND_MAP)
        return;
    buffer_init(&lines, ACCOUNTS_BYTES_MAX);
    for (uint32_t i = 0; i < accounts->length; i++) {
        const struct value *name = &accounts->items[2 * i], *hash = &accounts->items[2 * i + 1];

        if (!is_account(name, hash) || lines.length + name->length + hash->length + 2 >= ACCOUNTS_BYTES_MAX) {
            log_warning(NULL, "an account of the pool cannot be kept here");
            continue;
        }
        buffer_add(&lines, hash->text, hash->length);
        buffer_add_char(&lines, ' ');
        buffer_add(&lines, name->text, name->length);
        buffer_add_char(&lines, '\n');
    }
    ledger_put_meta(ledger, "accounts", buffer_text(&lines));
    buffer_done(&lines);
}

const char *accounts_hash(const struct ledger *ledger, const char *name, struct arena *arena)
{
    size_t length = strlen(name);

    for (const char *line = ledger_meta(ledger, "accounts", ""); *line; line += strcspn(line, "\n") + 1) {
        size_t hash_bytes = strcspn(line, " "), line_bytes = strcspn(line, "\n");

        if (line_bytes == hash_bytes + 1 + length && memcmp(line + hash_bytes + 1, name, length) == 0)
            return arena_text(arena, "%.*s", (int) hash_bytes, line);
    }
    return NULL;
}
