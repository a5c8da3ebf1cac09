/* metrics_text.c - figures as Prometheus reads them */
#include "shared/metrics_text.h"

void metrics_line(struct buffer *out, const char *name, const char *kind, uint64_t value)
{
    buffer_add_literal(out, "# TYPE drover_");
    buffer_add_text(out, name);
    buffer_add_char(out, ' ');
    buffer_add_text(out, kind);
    buffer_add_literal(out, "\ndrover_");
    buffer_add_text(out, name);
    buffer_add_char(out, ' ');
    buffer_add_int(out, (int64_t) value);
    buffer_add_char(out, '\n');
}
