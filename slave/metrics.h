/* metrics.h - GET /metrics of a host: its agent, and the exports and imports that it serves, as text that Prometheus reads */
#pragma once

struct loop;
struct slave_front;
struct transfers;

/* Before the front starts; the loop is the agent's. All outlive it. */
struct agent_metrics *agent_metrics_new(struct loop *, struct slave_front *, struct transfers *);
/* After the front has stopped. NULL is fine. */
void agent_metrics_destroy(struct agent_metrics **);
