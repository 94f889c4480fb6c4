// Python module of the emulator. Arguments arrive packed by resnet_kernels/emulator.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "error.h"
#include "module_cache.h"
#include "session.h"

namespace py = pybind11;

namespace rnk::emu {
namespace {

Dim3 dim3_of(const std::array<int64_t, 3>& v) {
  for (int64_t n : v)
    if (n < 1 || n > 0x7FFFFFFF)
      throw Error("argument", "a grid or block dimension of " + std::to_string(n) +
                                  " is invalid: expected 1 to 2147483647");
  return {static_cast<uint32_t>(v[0]), static_cast<uint32_t>(v[1]), static_cast<uint32_t>(v[2])};
}

// kind: p pointer, i integer, f floating point, b bytes
using PyArgument = std::tuple<char, py::bytes>;

std::vector<char> pack_params(const Kernel& k, const std::vector<PyArgument>& arguments) {
  const auto& params = k.entry->params;
  if (arguments.size() != params.size())
    throw Error("argument", "kernel " + k.name + " takes " + std::to_string(params.size()) +
                                " arguments, got " + std::to_string(arguments.size()));
  std::vector<char> out(k.param_bytes);
  for (size_t i = 0; i < params.size(); ++i) {
    std::string bytes = std::get<1>(arguments[i]);
    char kind = std::get<0>(arguments[i]);
    const Variable& p = params[i];
    std::string what = "argument " + std::to_string(i) + " of kernel " + k.name;
    if (bytes.size() != p.bytes)
      throw Error("argument", what + " is " + std::to_string(p.bytes) + " bytes wide, got " +
                                  std::to_string(bytes.size()));
    bool wants_float = is_float(p.type), wants_int = !wants_float && !is_bits(p.type);
    if ((wants_float && kind != 'f' && kind != 'b') || (wants_int && kind == 'f'))
      throw Error("argument", what + (wants_float ? " is floating point" : " is an integer") +
                                  ", got " +
                                  (kind == 'f'   ? "a float"
                                   : kind == 'p' ? "a pointer"
                                                 : "an integer"));
    std::memcpy(out.data() + k.param_offsets[i], bytes.data(), bytes.size());
  }
  return out;
}

void py_set_options(uint64_t seed, bool detect_races, bool count_memory,
                    uint64_t max_warp_instructions, int threads) {
  set_options({seed, detect_races, count_memory, max_warp_instructions, threads});
}

py::dict counters_dict(const Counters& c) {
  py::dict d, classes;
#define RNK_COUNTER(name) d[#name] = c.name
  RNK_COUNTER(warp_instructions);
  RNK_COUNTER(thread_instructions);
  RNK_COUNTER(global_load_sectors);
  RNK_COUNTER(global_load_sectors_ideal);
  RNK_COUNTER(global_store_sectors);
  RNK_COUNTER(global_store_sectors_ideal);
  RNK_COUNTER(global_bytes_loaded);
  RNK_COUNTER(global_bytes_stored);
  RNK_COUNTER(distinct_bytes_read);
  RNK_COUNTER(distinct_bytes_written);
  RNK_COUNTER(shared_load_wavefronts);
  RNK_COUNTER(shared_load_wavefronts_ideal);
  RNK_COUNTER(shared_store_wavefronts);
  RNK_COUNTER(shared_store_wavefronts_ideal);
  RNK_COUNTER(atomics);
  RNK_COUNTER(mma);
  RNK_COUNTER(mma_multiply_adds);
  RNK_COUNTER(barriers);
  RNK_COUNTER(same_value_stores);
  RNK_COUNTER(blocks);
  RNK_COUNTER(warps);
#undef RNK_COUNTER
  for (size_t i = 0; i < c.by_class.size(); ++i)
    if (c.by_class[i]) classes[op_class_name(static_cast<OpClass>(i))] = c.by_class[i];
  d["by_class"] = classes;
  return d;
}

// ranges: (address, bytes, name, read only)
py::dict py_launch(LoadedModule& m, const std::string& kernel, const std::array<int64_t, 3>& grid,
                   const std::array<int64_t, 3>& block, const std::vector<PyArgument>& arguments,
                   const std::vector<std::tuple<uint64_t, uint64_t, std::string, bool>>& ranges,
                   uint32_t shared_bytes, uint64_t seed, bool detect_races, bool count_memory,
                   uint64_t max_warp_instructions, int threads) {
  LaunchRequest r;
  r.grid = dim3_of(grid);
  r.block = dim3_of(block);
  r.dynamic_shared = shared_bytes;
  r.params = pack_params(*m.kernel(kernel), arguments);
  for (const auto& [base, bytes, name, read_only] : ranges)
    r.ranges.push_back({base, bytes, read_only, false, name});
  r.options = {seed, detect_races, count_memory, max_warp_instructions, threads};
  Counters c;
  {
    py::gil_scoped_release release;
    c = m.launch(std::move(r), kernel);
  }
  return counters_dict(c);
}

py::dict py_take_records() {
  py::dict d;
  for (const auto& [name, r] : take_records())
    d[py::str(name)] = py::make_tuple(r.launches, counters_dict(r.counters));
  return d;
}

py::list kernel_names(const LoadedModule& m) {
  py::list names;
  for (const auto& f : m.module().functions)
    if (f->is_entry && f->has_body) names.append(f->name);
  return names;
}

py::list param_types(LoadedModule& m, const std::string& kernel) {
  py::list out;
  for (const Variable& p : m.kernel(kernel)->entry->params)
    out.append(py::make_tuple(p.bytes, is_float(p.type)));
  return out;
}

py::list coverage_rows(LoadedModule& m, const std::string& kernel) {
  py::list rows;
  for (const auto& r : m.coverage(kernel)) rows.append(py::make_tuple(r.line, r.warps, r.threads));
  return rows;
}

}  // namespace
}  // namespace rnk::emu

PYBIND11_MODULE(RNK_EMULATOR_MODULE, m) {
  using namespace rnk::emu;
  static py::exception<Error> error(m, "EmulatorError");
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      // A message may quote bytes of the PTX that are no UTF-8.
      auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
          e.what(), static_cast<Py_ssize_t>(std::strlen(e.what())), "replace"));
      py::object o = py::reinterpret_borrow<py::object>(error.ptr())(text);
      o.attr("kind") = e.kind();
      PyErr_SetObject(error.ptr(), o.ptr());
    }
  });
  py::class_<LoadedModule, std::shared_ptr<LoadedModule>>(m, "Module")
      .def_property_readonly("kernels", kernel_names)
      .def_property_readonly("ptx", [](const LoadedModule& l) { return l.module().text; })
      .def_property_readonly("embedded", [](const LoadedModule& l) { return l.embedded.load(); })
      .def("params", param_types)
      .def("coverage", coverage_rows)
      .def("launched", &LoadedModule::launched)
      .def("forget_coverage", &LoadedModule::forget_coverage)
      .def("replace", &LoadedModule::replace)
      .def("launch", py_launch);
  m.def("load", load_module, "The module of this PTX text, parsed once.");
  m.def("modules", all_modules, "Modules seen so far and those inside this library.");
  m.def("embedded", embedded_count, "Compiled CUDA sources inside this library.");
  m.def("set_options", py_set_options, "Options of launches through the emulated CUDA runtime.");
  m.def("take_records", py_take_records, "Launches through it since the last call, by kernel.");
}
