/* put.h - typed writers of fields: VM_put_power_state(txn, vm, vm_power_state_Running), one per stored field */
#pragma once

#include "master/store.h"

#define PUT_STRING(x)     value_text(x)
#define PUT_SECRET(x)     value_text(x)
#define PUT_INT(x)        VALUE_INT(x)
#define PUT_FLOAT(x)      VALUE_FLOAT(x)
#define PUT_BOOL(x)       VALUE_BOOL(x)
#define PUT_DATETIME(x)   VALUE_DATETIME(x)
#define PUT_ENUM(e)       PUT_ENUM_OF_##e
#define PUT_REF(c)        VALUE_REF
#define PUT_SET(x)        PUT_VALUE
#define PUT_MAP(k, v)     PUT_VALUE
#define PUT_STRING_SET(x) (*(x))
#define PUT_STRING_MAP(x) (*(x))
#define PUT_RECORD(c)     PUT_VALUE
#define PUT_OPTION(x)     PUT_VALUE
#define PUT_VALUE(x)      (*(x))
#define PUT_OBJECT(x)     (*(x))

/* VALUE_ENUM wants the enum's name; one small function each keeps the FIELD expansion uniform. */
#define V(constant, text, life)
#define ENUM(name, values)                                                                         \
    static inline struct value PUT_ENUM_OF_##name(enum name index)                                 \
    {                                                                                              \
        return VALUE_ENUM(name, (int) index);                                                      \
    }
#include "shared/model/enums.def"
#undef ENUM
#undef V

#define FIELD(class_, name, type, access, initial, life, flags)                                    \
    static inline void class_##_put_##name(struct txn *txn, ref_t ref, CTYPE_##type x)             \
    {                                                                                              \
        txn_put(txn, CLASS_OF(class_), ref, F_##class_##_##name, PUT_##type(x));                   \
    }
#include "shared/model/rows.h"
