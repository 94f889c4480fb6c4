// A parsed PTX module: names resolved to registers, variables and labels; opcodes still text.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "types.h"

namespace rnk::emu {

struct Variable {
  std::string name;
  Space space = Space::kGlobal;
  Type type = Type::kNone;
  uint32_t align = 1;
  uint64_t bytes = 0;  // 0 with is_unsized: dynamic shared memory
  bool is_unsized = false;
  bool is_extern = false;
  std::vector<uint8_t> init;
  struct Reference {
    uint64_t offset;
    std::string symbol;
    int64_t addend;
    int size;
  };
  std::vector<Reference> references;  // symbol addresses inside the initialiser
};

struct Register {
  Type type;
};

struct Arg {
  enum Kind : uint8_t {
    kRegister,
    kImmediate,
    kFloat32,
    kFloat64,
    kSymbol,
    kSpecial,
    kVector,
    kAddress,
    kList,
    kSink
  };
  Kind kind = kSink;
  bool negated = false;     // !%p
  int64_t value = 0;        // immediate, register index, float bits or address offset
  std::string name;         // symbol, label, special register
  std::vector<Arg> items;   // vector or list elements; an address's base (0 or 1)
  std::vector<Arg> second;  // d|p
};

struct Statement {
  std::string_view opcode;  // whole word: ld.global.v4.f32
  int guard = -1;           // predicate register index
  bool guard_negated = false;
  int scope = 0;
  int line = 0;
  int source_file = 0, source_line = 0;
  std::vector<Arg> args;
};

struct Function {
  std::string name;
  bool is_entry = false, has_body = false;
  std::vector<Variable> params, results;
  std::vector<Variable> locals;  // .local, .shared and .param variables of the body
  std::unordered_map<std::string, int> local_index;
  std::vector<Register> registers;
  std::vector<Statement> statements;
  std::map<std::pair<int, std::string>, int> labels;  // (scope, name) -> statement
  std::map<std::string, std::vector<std::string>> branch_targets;
  std::vector<int> scope_parent;
  std::array<uint32_t, 3> required_threads{0, 0, 0};  // .reqntid
  std::array<uint32_t, 3> max_threads{0, 0, 0};       // .maxntid
  int line = 0;
};

struct Module {
  std::string text;
  std::string target;
  std::map<int, std::string> files;
  std::vector<std::unique_ptr<Function>> functions;
  std::unordered_map<std::string, Function*> function_index;
  std::vector<Variable> variables;
  std::unordered_map<std::string, int> variable_index;
};

// Throws Error("parse") naming the line.
std::unique_ptr<Module> parse_module(std::string text);

}  // namespace rnk::emu
