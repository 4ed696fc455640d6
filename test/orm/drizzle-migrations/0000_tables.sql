CREATE TYPE "public"."account_status" AS ENUM('trial', 'active', 'closed');--> statement-breakpoint
CREATE TABLE "plans" (
	"code" text PRIMARY KEY NOT NULL,
	"title" text NOT NULL
);
--> statement-breakpoint
SELECT create_reference_table('plans');--> statement-breakpoint
CREATE TABLE "accounts" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"name" varchar(100) NOT NULL,
	"plan_code" text NOT NULL,
	"status" "account_status" DEFAULT 'trial' NOT NULL,
	"settings" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
SELECT create_distributed_table('accounts', 'id');--> statement-breakpoint
CREATE TABLE "posts" (
	"account_id" bigint NOT NULL,
	"id" bigserial NOT NULL,
	"title" text NOT NULL,
	"views" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "posts_account_id_id_pk" PRIMARY KEY("account_id","id"),
	CONSTRAINT "posts_title_unique" UNIQUE("account_id","title")
);
--> statement-breakpoint
SELECT create_distributed_table('posts', 'account_id', colocate_with => 'accounts');--> statement-breakpoint
ALTER TABLE "accounts" ADD CONSTRAINT "accounts_plan_code_plans_code_fk" FOREIGN KEY ("plan_code") REFERENCES "public"."plans"("code") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "posts" ADD CONSTRAINT "posts_account_id_accounts_id_fk" FOREIGN KEY ("account_id") REFERENCES "public"."accounts"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "posts_views_index" ON "posts" USING btree ("views" DESC NULLS LAST);
