// What an object of a foreign config.json holds beside the fields that lectern reads. Each field is
// read, is known to be without effect on what the model computes, or is refused by name: a setting
// that was passed over in silence would give other numbers than its author's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lectern {

class Fields;

/// Of every object: what configurations of transformers hold for its own use (names, versions,
/// dtypes, what is returned, how text is sampled, labels, dropout). Dropout other than 0 is noted:
/// training here has none.
bool is_bookkeeping(std::string_view field);

/// Deals with the members of `in` that nobody read (Fields::watch()) and that are neither among
/// `without_effect` nor bookkeeping. Throws ConfigError naming the field when its name says that it
/// may change what the model computes ("rope_", "scale", "window", "quant" ...). The others are
/// passed over with one note that names them (core/notice.h). One that is off (false, 0, empty)
/// says nothing.
void check_other_fields(const Fields& in, const std::vector<std::string_view>& without_effect = {});

/// The same for an object all of whose fields count: refuses every other one that is on.
void refuse_other_fields(const Fields& in,
                         const std::vector<std::string_view>& without_effect = {});

}  // namespace lectern
