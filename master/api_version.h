/* api_version.h - what we call ourselves to clients: the version of the API, and the level of
 * compatibility (design.md section 3, "Versions clients see") */
#pragma once

#define API_MAJOR       2
#define API_MINOR       23
#define API_VENDOR      "Drover"
#define PRODUCT_VERSION "8.3.0"
