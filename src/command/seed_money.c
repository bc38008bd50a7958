/* Payment methods; transactions with their invoices. */
#include <stdio.h>
#include <string.h>

#include "command/seed_make.h"

/* Letters that mean nothing, as gateways give them. No digits: no run of them could be taken for a card's
 * number. */
static void add_letters(struct seed_row *row, const char *prefix, int n, struct seed_random *random)
{
    char text[48];
    int at = snprintf(text, sizeof(text), "%s", prefix);
    for (int i = 0; i < n && at + 1 < (int)sizeof(text); i++, at++)
        text[at] = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"[seed_random_below(random, 49)];
    seed_row_add(row, (struct seed_span){text, (size_t)at});
}

/* ---- payment methods ---- */

/* The card that people of a country have, beside the two that are everywhere. */
static const char *local_brand(const struct seed_country *country)
{
    static const char *const brands[][2] = {
        {"JP", "jcb"},  {"CN", "unionpay"}, {"IN", "rupay"},           {"BR", "elo"},
        {"US", "amex"}, {"CA", "interac"},  {"FR", "cartes_bancaires"}};
    for (size_t i = 0; i < sizeof(brands) / sizeof(*brands); i++)
        if (strcmp(brands[i][0], country->code) == 0)
            return brands[i][1];
    return "mastercard";
}

/* The last day of a month, some time after SEED_NOW. */
static int64_t choose_expiry(struct seed_random *random)
{
    int64_t day = SEED_NOW + seed_random_within(random, 60, 1700) * SEED_DAY;
    struct seed_date date = seed_date_of(day);
    for (unsigned month = date.month; date.month == month; day += SEED_DAY)
        date = seed_date_of(day + SEED_DAY);
    return day - SEED_DAY;
}

static void make_instrument(struct seed_row *row, const struct seed_country *country,
                            struct seed_random *random)
{
    int64_t roll = seed_random_below(random, 100);
    bool card = roll < 72, paypal = roll >= 88;
    seed_row_text(row, card ? "card" : paypal ? "paypal" : "bank");
    if (card)
        seed_row_text(row, roll < 32 ? "visa" : roll < 54 ? "mastercard" : local_brand(country));
    else
        seed_row_null(row);
    if (paypal) {
        seed_row_null(row);
    } else {
        seed_row_begin(row);
        seed_row_format(row, "%04d", (int)seed_random_below(random, 10000));
    }
    seed_row_begin(row);
    add_letters(row, card ? "tok_" : paypal ? "ba_" : "mandate_", 24, random);
    if (card)
        seed_row_day(row, choose_expiry(random));
    else
        seed_row_null(row);
}

/* When the student first paid for something. */
static int64_t first_payment(const struct seed_plan *plan, const struct seed_region *region, int64_t student)
{
    int64_t first = SEED_NOW;
    for (int64_t t = student; t < region->transactions; t += region->students) {
        struct seed_transaction transaction;
        seed_transaction_of(plan, region, t, &transaction);
        if (transaction.created < first)
            first = transaction.created;
    }
    return first;
}

/* The default method of a student who pays, stored just before the first payment; every fourth has an older
 * one. */
void seed_make_methods(struct seed_maker *maker, const struct seed_region *region, int64_t student)
{
    struct seed_row *row = &maker->rows[0];
    int64_t u = region->admins + region->instructors + student;
    int64_t first = first_payment(maker->plan, region, student);
    struct seed_user user;
    seed_user_of(maker->plan, region, u, &user);
    for (int64_t i = 0; i < 1 + (student % 4 == 3); i++) {
        int64_t ordinal = region->first_method + student + student / 4 + i;
        struct seed_random random =
            seed_random_of(maker->plan->seed, SEED_KIND_METHOD, maker->shard->number, (uint64_t)ordinal);
        int64_t stored =
            i == 0 ? first - seed_random_within(&random, 5 * SEED_SECOND, 90 * SEED_SECOND)
                   : user.created + seed_random_below(&random, first - user.created - 90 * SEED_SECOND);
        seed_row_int(row, region->number);
        seed_row_int(row, seed_id(maker->shard->number, ordinal));
        seed_row_int(row, seed_id(maker->shard->number, region->first_user + u));
        make_instrument(row, user.country, &random);
        seed_row_bool(row, i == 0);
        for (int clock = 0; clock < 3; clock++)
            seed_row_time(row, stored);
        seed_row_end(row);
    }
}

/* ---- transactions ---- */

/* Hundredths to the smallest unit that the currency has. */
static int64_t round_to_unit(int64_t cents, const char *currency)
{
    static const char whole[] = "CLP COP JPY KRW VND XOF";
    return strstr(whole, currency) ? (cents + 50) / 100 * 100 : cents;
}

/* The invoice says what the amount is made of; the price has the tax in it. It has the payment's ordinal. */
static void make_invoice(struct seed_maker *maker, const struct seed_region *region, int64_t ordinal,
                         const struct seed_transaction *t, const struct seed_course *course, int tax_permille)
{
    static const char *const statuses[] = {"paid", "void", "void",
                                           "issued"}; /* by the state of the payment */
    const char *currency = course->country->currency;
    struct seed_row *row = &maker->rows[1];
    int64_t rate = 1000 + tax_permille;
    int64_t subtotal = round_to_unit((course->cents * 2000 + rate) / (2 * rate), currency);
    int64_t issued = t->settled + SEED_SECOND, updated = t->updated + SEED_SECOND;
    seed_row_int(row, region->number);
    seed_row_int(row, seed_id(maker->shard->number, ordinal));
    seed_row_int(row, seed_id(maker->shard->number, ordinal));
    seed_row_begin(row);
    seed_row_format(row, "INV-%u-%lld", maker->shard->number, (long long)ordinal + 1);
    seed_row_text(row, statuses[t->status]);
    seed_row_day(row, issued);
    seed_row_day(row, issued + 14 * SEED_DAY);
    seed_row_cents(row, subtotal);
    seed_row_cents(row, course->cents - subtotal);
    seed_row_text(row, currency);
    seed_row_time(row, issued);
    seed_row_time(row, updated);
    seed_row_time(row, updated);
    seed_row_end(row);
}

void seed_make_transaction(struct seed_maker *maker, const struct seed_region *region, int64_t t)
{
    static const char *const statuses[] = {"completed", "refunded", "failed", "pending"};
    struct seed_row *row = &maker->rows[0];
    struct seed_transaction transaction;
    struct seed_course course;
    struct seed_user payer;
    int64_t ordinal = region->first_transaction + t;
    struct seed_random random =
        seed_random_of(maker->plan->seed, SEED_KIND_TRANSACTION, maker->shard->number, ~(uint64_t)ordinal);
    seed_transaction_of(maker->plan, region, t, &transaction);
    seed_course_of(maker->plan, maker->shard, transaction.course, &course);
    seed_user_of(maker->plan, region, transaction.user, &payer);
    seed_row_int(row, region->number);
    seed_row_int(row, seed_id(maker->shard->number, ordinal));
    seed_row_int(row, seed_id(maker->shard->number, region->first_user + transaction.user));
    seed_row_int(row, seed_id(maker->shard->number, transaction.course));
    seed_row_int(row, seed_id(maker->shard->number, transaction.method));
    seed_row_cents(row, course.cents);
    seed_row_text(row, course.country->currency);
    seed_row_text(row, statuses[transaction.status]);
    seed_row_text(row, payer.country->gateway);
    seed_row_begin(row);
    add_letters(row, "pay_", 16, &random);
    seed_row_format(row, "_%lld", (long long)seed_id(maker->shard->number, ordinal));
    seed_row_time(row, transaction.created);
    seed_row_time(row, transaction.updated);
    seed_row_time(row, transaction.updated);
    seed_row_end(row);
    make_invoice(maker, region, ordinal, &transaction, &course, payer.country->tax_permille);
}
