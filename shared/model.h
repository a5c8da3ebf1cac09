/* model.h - the object model of XenAPI as data: classes, fields, messages, enums and errors.
 *
 * The rows stand in model/ *.def, one file per class, and say everything once:
 *
 *   CLASS  (class, "life", flags)
 *   FIELD  (class, name, type, access, default, "life", flags)
 *   INVERSE(class, name, other class, its field, "life", flags)      a set derived from the refs of another class
 *   METHOD (class, name, role, acts, async, result, "life", flags, arguments)
 *   LATER  (the same columns)                                         known, answered NOT_IMPLEMENTED for now
 *   ENUM   (name, V(constant, "wire text", "life") ...)
 *   ERROR  (code, "life", "names of the parameters")
 *
 * life is the release in which a thing came, and " prototyped", " deprecated:R" or " removed:R" behind it.
 * From the rows this file makes C types: `enum vm_power_state`, `struct VM_start_args`, the field numbers
 * F_VM_power_state, and readers such as VM_get_power_state(object). model.c makes the tables, and from
 * those, once at model_init(), the derived messages (getters, setters, get_all, ...) of wire.md section 9. */
#pragma once

#include "shared/base.h"
#include "shared/value.h"

struct arena;
struct call;

/* ---- types ---- */

struct enum_type {
    const char *name;
    int count;
    const char *const *texts; /* wire texts, by index */
    const char *const *lives;
};

struct type {
    enum kind kind;
    bool is_secret;                 /* a string never logged */
    const struct type *key;         /* of a map */
    const struct type *element;     /* of a set or map */
    const struct enum_type *enum_type;
    const struct class *class;      /* of a ref or record */
};

/* ---- classes ---- */

enum class_flags {
    CLASS_IN_DATABASE = 1,  /* has objects; the others are records or message names only */
    CLASS_PERSIST = 2,      /* its objects are durable */
    CLASS_EVENTS = 4,       /* changes are told to event readers */
    CLASS_CTOR_DTOR = 8,    /* create and destroy are public */
    CLASS_GET_ALL = 16,     /* get_all, get_all_records and the _where forms exist */
    CLASS_INTERNAL = 32,    /* Drover's own bookkeeping: never on the wire */
    CLASS_SECRET = 64,      /* reading takes pool-operator */
    CLASS_ROWS_ONLY = 128,  /* no derived messages: those it has are all rows */
    CLASS_NO_BY_NAME = 256, /* has a name_label, but no get_by_name_label */
};

enum qualifier {
    QUALIFIER_RO,        /* server-maintained */
    QUALIFIER_STATIC_RO, /* set at creation only */
    QUALIFIER_RW,
};

/* The six roles of XenServer, each with all rights of those before it; LOCAL_ROOT is no role but the Unix
 * socket and the pool secret (wire.md section 4). */
enum role {
    ROLE_READ_ONLY,
    ROLE_VM_OPERATOR,
    ROLE_VM_ADMIN,
    ROLE_VM_POWER_ADMIN,
    ROLE_POOL_OPERATOR,
    ROLE_POOL_ADMIN,
    ROLE_LOCAL_ROOT,
};

enum field_flags {
    FIELD_NS = 1,          /* DB name has __ for the first _ */
    FIELD_VOLATILE = 2,    /* reset to the default by a restart; never in SQLite or Redis */
    FIELD_INTERNAL = 4,    /* never in records */
    FIELD_INVERSE = 8,     /* not stored: derived from the refs of another class */
    FIELD_NS2 = 16,        /* DB name has __ for the second _ (host.API_version_*) */
    FIELD_SECRET = 32,     /* encrypted in the mirror, never logged */
    FIELD_OURS = 64,       /* Drover's own bookkeeping, not in the reference tables; goes with FIELD_INTERNAL */
};

struct field {
    const char *name;
    const char *db_name;             /* filled by model_init */
    const struct class *class;
    const struct type *type;
    enum qualifier qualifier;
    enum role writer;                /* least role for set_, add_ and remove_ (QUALIFIER_RW) */
    const char *default_text;        /* NULL: none, a constructor must be given it */
    const char *life;
    unsigned flags;
    int number;                      /* F_class_name: index in class->fields and object->fields */
    const struct class *inverse_class;  /* FIELD_INVERSE: the class whose */
    int inverse_field;                  /* field this set is derived from */
    const struct field *told;        /* the INVERSE field of the referred class that this ref or set of refs fills, or NULL;
                                        filled by model_init. Such fields are indexed by the store. */
    struct value initial;            /* the default, or the type's zero; filled by model_init */
};

struct class {
    const char *name;
    const char *event_name;          /* lower case, as in events; filled by model_init */
    int number;                      /* CLASS_NUMBER_x: index in model_classes */
    unsigned flags;
    const char *life;
    struct field *fields;
    int field_count;
    int name_label;                  /* number of the field name_label, or -1 */
};

/* ---- messages ---- */

enum method_kind {
    METHOD_CUSTOM,
    METHOD_GET_RECORD,
    METHOD_GET_BY_UUID,
    METHOD_GET_BY_NAME_LABEL,
    METHOD_GET_ALL,
    METHOD_GET_ALL_RECORDS,
    METHOD_GET_ALL_WHERE,
    METHOD_GET_ALL_RECORDS_WHERE,
    METHOD_GET,
    METHOD_SET,
    METHOD_ADD,         /* add_<set> */
    METHOD_REMOVE,      /* remove_<set> */
    METHOD_ADD_TO,      /* add_to_<map> */
    METHOD_REMOVE_FROM, /* remove_from_<map> */
};

/* Who does the work. */
enum acts {
    ACTS_READ,   /* answered on the HTTP loop from a pinned generation */
    ACTS_MASTER, /* a fiber of the core */
};

enum method_flags {
    METHOD_HIDDEN = 1,        /* works, but is not in the published reference */
    METHOD_POOL_INTERNAL = 2, /* pool sessions only */
    METHOD_NO_SESSION = 4,    /* takes no session as its first parameter */
    METHOD_SECRET = 8,        /* parameters are not logged */
    METHOD_NO_CURRENT_OPS = 16,
    METHOD_CTOR = 32,
    METHOD_DTOR = 64,
    METHOD_LATER = 128,       /* answers NOT_IMPLEMENTED */
    METHOD_REMOVED = 256,     /* answers MESSAGE_REMOVED; filled by model_init from the life */
    METHOD_NO_EFFECT = 512,   /* accepted, without effect on the hypervisors we drive */
    METHOD_EMERGENCY = 1024,  /* answered by a host without a master, too */
};

struct param {
    const char *name;
    const struct type *type;
    const char *default_text; /* NULL: mandatory */
    const char *since;        /* of an optional parameter */
    struct value initial;     /* of an optional parameter: the default; filled by model_init */
    size_t offset;            /* in the method's argument struct */
};

struct method {
    const char *name;         /* "VM.start" */
    const char *message;      /* "start" */
    const struct class *class;
    enum method_kind kind;
    const struct field *field; /* of derived messages about one field */
    enum role role;
    enum acts acts;
    bool is_async;            /* Async.<name> exists */
    const struct type *result;
    const char *life;
    unsigned flags;
    const struct param *params;
    int param_count;
    int params_required;
    size_t args_bytes;        /* of the argument struct; 0 for derived messages */
    int number;               /* METHOD_NUMBER_x of a custom message, -1 for a derived one */
};

struct error_row {
    const char *code;
    const char *life;
    const char *params;       /* names, separated by commas */
    int param_count;
};

/* ---- what the rows expand to ---- */

/* C types of arguments and of what readers give. Sets, maps and records stay values. */
#define CTYPE_STRING     const char *
#define CTYPE_SECRET     const char *
#define CTYPE_INT        int64_t
#define CTYPE_FLOAT      double
#define CTYPE_BOOL       bool
#define CTYPE_DATETIME   int64_t
#define CTYPE_ENUM(e)    enum e
#define CTYPE_REF(c)     ref_t
#define CTYPE_SET(x)     const struct value *
#define CTYPE_MAP(k, v)  const struct value *
#define CTYPE_STRING_SET const struct value *
#define CTYPE_STRING_MAP const struct value *
#define CTYPE_RECORD(c)  const struct value *
#define CTYPE_OPTION(x)  const struct value *
#define CTYPE_OBJECT     const struct value *

/* The enums. */
#define V(constant, text, life) constant,
#define ENUM(name, values) enum name { values };
#include "shared/model/enums.def"
#undef ENUM
#undef V

#define ENUM(name, values) extern const struct enum_type enum_type_##name;
#define V(constant, text, life)
#include "shared/model/enums.def"
#undef ENUM
#undef V

/* The errors: ERR_VM_BAD_POWER_STATE and so on. Functions return them negated. */
enum error_code {
    ERR_NONE_ = 999,
#define ERROR(code, life, params) ERR_##code,
#include "shared/model/errors.def"
#undef ERROR
    ERR_END_,
};

/* Class numbers. */
enum class_number {
#define CLASS(name, life, flags) CLASS_NUMBER_##name,
#include "shared/model/rows.h"
    CLASS_COUNT,
};

extern struct class model_classes[CLASS_COUNT];
#define CLASS_OF(name) (&model_classes[CLASS_NUMBER_##name])

/* Field numbers: F_VM_power_state is the index in CLASS_OF(VM)->fields and in object->fields. Each CLASS row
 * closes the enum of the class before and opens its own. */
#define CLASS(name, life, flags)                                                                   \
    }                                                                                              \
    ;                                                                                              \
    enum F_##name##_number {                                                                       \
        F_##name##_before_ = -1,
#define FIELD(class, name, type, access, initial, life, flags) F_##class##_##name,
#define INVERSE(class, name, other, field, life, flags) F_##class##_##name,
enum F_none_number {
    F_none_before_ = -1,
#include "shared/model/rows.h"
};

/* Message numbers of the rows. */
enum method_number {
#define METHOD(class, name, role, acts, async, result, life, flags, args) METHOD_NUMBER_##class##_##name,
#define LATER(class, name, role, acts, async, result, life, flags, args)  METHOD_NUMBER_##class##_##name,
#include "shared/model/rows.h"
    METHOD_COUNT,
};

/* Argument structs. */
#define NO_ARGS
#define ARG(type, name)                  CTYPE_##type name;
#define OPT(type, name, initial, since)  CTYPE_##type name;
#define METHOD(class, name, role, acts, async, result, life, flags, args)                          \
    struct class##_##name##_args {                                                                 \
        args                                                                                       \
    };
#define LATER METHOD
#include "shared/model/rows.h"
#undef ARG
#undef OPT
#undef NO_ARGS

/* ---- objects ---- */

/* One version of one object. Versions are immutable once their generation is published; the store makes,
 * owns and frees them (master/store.h). */
struct object {
    const struct class *class;
    ref_t ref;
    uint64_t created;        /* generation in which the object came */
    uint64_t modified;       /* generation of this version */
    struct value fields[];   /* class->field_count; FIELD_INVERSE ones stay KIND_VOID */
};

/* Readers: VM_get_power_state(object). Inverse sets are read from a view (master/store.h). */
#define GET_STRING(v)      ((v)->text)
#define GET_SECRET(v)      ((v)->text)
#define GET_INT(v)         ((v)->i)
#define GET_FLOAT(v)       ((v)->f)
#define GET_BOOL(v)        ((v)->b)
#define GET_DATETIME(v)    ((v)->i)
#define GET_ENUM(e)        GET_INDEX
#define GET_INDEX(v)       ((v)->e.index)
#define GET_REF(c)         GET_REFERENCE
#define GET_REFERENCE(v)   ((v)->ref)
#define GET_SET(x)         GET_VALUE
#define GET_MAP(k, v)      GET_VALUE
#define GET_STRING_SET(v)  (v)
#define GET_STRING_MAP(v)  (v)
#define GET_RECORD(c)      GET_VALUE
#define GET_OPTION(x)      GET_VALUE
#define GET_VALUE(v)       (v)
#define GET_OBJECT(v)      (v)
#define FIELD(class_, name, type, access, initial, life, flags)                                    \
    static inline CTYPE_##type class_##_get_##name(const struct object *object)                    \
    {                                                                                              \
        assert(object->class == CLASS_OF(class_));                                                 \
        return (CTYPE_##type) GET_##type(&object->fields[F_##class_##_##name]);                    \
    }
#include "shared/model/rows.h"

/* ---- lookup ---- */

/* Builds what the rows do not say themselves: DB names, defaults, inverse relations, derived messages and
 * the table of names. Once, before any other use; calling again does nothing. */
void model_init(void);

const struct class *model_class(const char *name);        /* by exact name, or NULL */
const struct class *model_class_any_case(const char *name, size_t length); /* as event.from matches */
const struct field *model_field(const struct class *class, const char *name); /* wire or DB name, or NULL */
/* "VM.start" or "VM_start"; NULL when unknown. */
const struct method *model_method(const char *name);
/* Row of a number METHOD_NUMBER_x. */
const struct method *model_method_row(int number);
/* All messages, sorted by name: for system.listMethods and --describe. */
const struct method *const *model_methods(size_t *ret_count);
const struct error_row *model_error(int code);             /* an ERR_ constant */
/* The index of a wire text, or -1. */
int enum_index(const struct enum_type *type, const char *text);
static inline const char *enum_text(const struct enum_type *type, int index)
{
    assert(index >= 0 && index < type->count);
    return type->texts[index];
}
/* The zero of a type: empty text, 0, false, null ref, empty set, the enum's first value. */
struct value type_zero(const struct type *type);
/* "set(ref VM)", as the reference tables spell types, into a buffer. */
size_t type_print(char *out, size_t bytes, const struct type *type);
const char *role_name(enum role role); /* "vm-admin" */
