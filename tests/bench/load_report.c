/* load_report.c - results as one JSON object on standard output
 *
 * Names and texts are our own or error codes, without anything that JSON would want escaped; what is not is dropped. */
#include <stdio.h>

#include "tests/bench/load.h"

static const double shares[] = {0.5, 0.9, 0.99, 0.999};
static const char *const share_names[] = {"p50", "p90", "p99", "p999"};

static void text(FILE *out, const char *value)
{
    fputc('"', out);
    for (; *value; value++)
        if (*value >= ' ' && *value != '"' && *value != '\\')
            fputc(*value, out);
    fputc('"', out);
}

static void name(struct load *load, const char *value)
{
    fputs(load->has_members ? ", " : "", load->out);
    load->has_members = true;
    text(load->out, value);
    fputs(": ", load->out);
}

void report_begin(struct load *load)
{
    fputc('{', load->out);
    report_text(load, "row", load->row);
    report_number(load, "connections", load->connections);
    report_number(load, "vms", (double) load->vm_count);
    report_number(load, "pool_vms", (double) load->pool_vms);
}

void report_end(struct load *load)
{
    fputs("}\n", load->out);
    fflush(load->out);
}

void report_number(struct load *load, const char *key, double value)
{
    name(load, key);
    fprintf(load->out, "%.9g", value);
}

void report_text(struct load *load, const char *key, const char *value)
{
    name(load, key);
    text(load->out, value);
}

void report_latency(struct load *load, const char *prefix, const struct histogram *histogram)
{
    char key[64];

    snprintf(key, sizeof key, "%slatency_ms", prefix);
    name(load, key);
    fputc('{', load->out);
    for (size_t i = 0; i < ARRAY_SIZE(shares); i++)
        fprintf(load->out, "\"%s\": %.9g, ", share_names[i], (double) histogram_at(histogram, shares[i]) / 1e6);
    fprintf(load->out, "\"max\": %.9g, \"count\": %llu}", (double) histogram->most / 1e6,
            (unsigned long long) histogram->count);
}

static void codes(struct load *load, const char *prefix, const struct tally *tally)
{
    char key[64];

    snprintf(key, sizeof key, "%scodes", prefix);
    name(load, key);
    fputc('{', load->out);
    for (size_t i = 0; i < CODES_MAX && tally->codes[i].count > 0; i++) {
        fputs(i > 0 ? ", " : "", load->out);
        text(load->out, tally->codes[i].text);
        fprintf(load->out, ": %llu", (unsigned long long) tally->codes[i].count);
    }
    fputc('}', load->out);
}

void report_tally(struct load *load, const char *prefix, const struct tally *tally)
{
    double seconds = (double) (load->end_ns - load->begin_ns) / 1e9;
    char key[64];

    snprintf(key, sizeof key, "%scount", prefix);
    report_number(load, key, (double) tally->latency.count);
    snprintf(key, sizeof key, "%srate", prefix);
    report_number(load, key, seconds > 0 ? (double) tally->latency.count / seconds : 0);
    snprintf(key, sizeof key, "%sfailures", prefix);
    report_number(load, key, (double) tally->failures);
    codes(load, prefix, tally);
    report_latency(load, prefix, &tally->latency);
}

void report_watch(struct load *load)
{
    const struct watch *watch = &load->watch;

    report_number(load, "seconds", (double) (load->end_ns - load->begin_ns) / 1e9);
    name(load, "metrics");
    fputc('{', load->out);
    for (unsigned i = 0; i < load->metrics.count; i++) {
        fputs(i > 0 ? ", " : "", load->out);
        text(load->out, load->metrics.list[i].name);
        fprintf(load->out, ": %.9g", load->metrics.list[i].passed);
    }
    fputc('}', load->out);
    name(load, "cpu");
    fprintf(load->out, "{\"load\": %.4f", watch->own_share);
    for (unsigned i = 0; i < watch->count; i++)
        fprintf(load->out, ", \"%s\": %.4f", watch->groups[i].name, watch->groups[i].cpu_share);
    fputc('}', load->out);
    name(load, "cpu_busy");
    fputc('[', load->out);
    for (unsigned i = 0; i < 64 && watch->begin_all[i] > 0; i++)
        fprintf(load->out, "%s%.4f", i > 0 ? ", " : "", watch->cpu_busy[i]);
    fputc(']', load->out);
}
