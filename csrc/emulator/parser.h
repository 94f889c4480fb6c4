// Recursive-descent PTX parser; parser.cpp holds the module level, parser_body.cpp function bodies.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "error.h"
#include "lexer.h"
#include "module.h"

namespace rnk::emu {

class Parser {
 public:
  explicit Parser(Module& module) : module_(module), lexer_(module.text) {}
  void parse();

 private:
  // parser.cpp
  void parse_directive(std::string_view word);
  void parse_file();
  void parse_function(bool is_entry);
  void parse_function_attributes(Function& f);
  std::vector<Variable> parse_params();
  Variable parse_variable(Space space, bool allow_initialiser);
  void parse_dimensions(Variable& v);
  void parse_initialiser(Variable& v);
  void append_initialiser_value(Variable& v);
  void skip_section();
  // parser_body.cpp
  void parse_body(Function& f);
  void parse_body_item(Function& f);
  void parse_body_directive(Function& f, std::string_view word);
  void parse_registers(Function& f);
  void parse_local(Function& f, Space space);
  void parse_loc();
  void parse_label(Function& f, std::string name);
  void parse_statement(Function& f, std::string_view first);
  int parse_guard(bool* negated);
  Arg parse_arg(int depth);
  Arg parse_word_arg(std::string_view word);
  Arg parse_number(std::string_view text, bool minus);
  Arg parse_address();
  std::vector<Arg> parse_items(std::string_view close, int depth);
  int find_register(std::string_view name) const;
  std::string find_local(std::string_view name) const;

  [[noreturn]] void fail(const std::string& what) const;
  bool accept(std::string_view s);
  void expect(std::string_view s);
  std::string expect_word();
  uint64_t expect_integer();

  struct RegisterRange {
    int base;
    int count;
  };
  struct Scope {
    int id;
    std::unordered_map<std::string, RegisterRange> ranges;  // "%r" of %r<9>
    std::unordered_map<std::string, int> names;
    std::unordered_map<std::string, std::string> locals;  // name -> unique name
  };

  Module& module_;
  Lexer lexer_;
  Function* function_ = nullptr;
  std::vector<Scope> scopes_;
  int source_file_ = 0, source_line_ = 0;
};

}  // namespace rnk::emu
