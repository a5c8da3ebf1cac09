/* metrics_text.h - figures as Prometheus reads them: GET /metrics of the master and of the agents */
#pragma once

#include "shared/buffer.h"

#define METRICS_HEADERS "content-type: text/plain; version=0.0.4\r\n"

/* One figure, as drover_NAME. kind: "counter", which only grows while the process lives, or "gauge". */
void metrics_line(struct buffer *, const char *name, const char *kind, uint64_t value);
